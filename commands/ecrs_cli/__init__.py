"""The command `ecrs`: combines the verbs of services, seed and models. No other package imports this one."""
