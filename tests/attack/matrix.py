"""All attacks. A module with new ones is imported here."""

from tests.attack import access, connections, messages, parts, stores  # noqa: F401 - they add themselves
from tests.attack.attack import ATTACKS

__all__ = ["ATTACKS"]
