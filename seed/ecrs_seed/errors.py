"""The error of a failed seed."""

from ecrs.rpc.errors import Fault


class SeedError(Fault):
    """The store cannot be seeded. It continues to serve what it served before."""
