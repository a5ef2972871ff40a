"""The bundle version that the profile store was seeded with, and the health check of um and cm."""

from ecrs.metrics import set_bundle_version
from ecrs.rpc.errors import Unavailable
from ecrs.storage.profiles import ProfileStore

CHECK_TIMEOUT_S = 1.0


class SeededVersion:
    """Keeps `version`, the store's bundle version as of the last check; empty before the first check."""

    def __init__(self, service: str, profiles: ProfileStore) -> None:
        self.version = ""
        self._service = service
        self._profiles = profiles

    async def check(self) -> None:
        """Refresh `version`. Raises Unavailable if the store cannot be reached or was never seeded."""
        version = await self._profiles.version(CHECK_TIMEOUT_S)
        if version is None:
            raise Unavailable("the profile store is empty: seed-redis has not finished")
        if version != self.version:
            self.version = version
            set_bundle_version(self._service, version)
