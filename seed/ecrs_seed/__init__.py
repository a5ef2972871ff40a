"""Idempotent one-shot programs that load a bundle into the stores."""
