"""The bundle version that the profile store was seeded with, and the health check of um and cm."""

from ecrs.metrics import set_bundle_version
from ecrs.storage.profiles import NotSeeded, ProfileStore

CHECK_TIMEOUT_S = 1.0


class SeededVersion:
    """Keeps `version`, the store's bundle version when it was last read.

    It is empty before the first read, and if the store held no bundle then.
    """

    def __init__(self, service: str, profiles: ProfileStore) -> None:
        self.version = ""
        self._service = service
        self._profiles = profiles

    async def check(self) -> None:
        """Read `version`. Raises a Fault if the store cannot be read, NotSeeded if it holds no bundle."""
        await self.read(CHECK_TIMEOUT_S)

    async def read(self, timeout_s: float) -> None:
        """Read `version` within `timeout_s`. Raises the same faults as `check`."""
        version = await self._profiles.version(timeout_s) or ""
        if version != self.version:
            self.version = version
            set_bundle_version(self._service, version)
        if not version:
            raise NotSeeded
