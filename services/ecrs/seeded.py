"""Which bundle the profile store was seeded with: the check of um and cm."""

from ecrs.kit.errors import Unavailable
from ecrs.kit.observe import show_bundle
from ecrs.profiles import Profiles

CHECK_TIMEOUT_S = 1.0


class Seeded:
    """The store's bundle version as of the last check; empty before the first."""

    def __init__(self, service: str, profiles: Profiles) -> None:
        self.version = ""
        self._service = service
        self._profiles = profiles

    async def check(self) -> None:
        """Refresh `version`; Unavailable while the store is away or holds nothing."""
        version = await self._profiles.version(CHECK_TIMEOUT_S)
        if version is None:
            raise Unavailable("the profile store is empty: seed-redis has not finished")
        if version != self.version:
            self.version = version
            show_bundle(self._service, version)
