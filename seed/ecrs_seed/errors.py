"""Faults of the seeds."""

from ecrs.rpc.errors import Fault


class SeedError(Fault):
    """The store cannot be seeded; what it served before, it still serves."""
