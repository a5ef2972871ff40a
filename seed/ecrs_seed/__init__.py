"""One-shot, idempotent loaders of a bundle into the stores."""
