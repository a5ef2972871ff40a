"""The command `ecrs`: puts the verbs of services, seed and models together. Nothing imports this package."""
