"""Generates the candidates for a user.

The vector channel calls the user tower and the vector store. The other channels use tables in this process.
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.clock import BundleClock
from ecrs.domain.entities import User
from ecrs.features.catalogue import NO_ID
from ecrs.recall.blending import DEPTH, CandidateGenerator, UserContext
from ecrs.recall.candidates import COLD_START, VECTOR, RetrievedCandidates
from ecrs.recall.channels import Interest, ScoredItems
from ecrs.recall.cold_start import (
    CANDIDATES_PER_COLD_START_ITEM,
    best_cold_start_items,
    with_cold_start_items,
)
from ecrs.rpc.breaker import CircuitBreaker
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import DeadlineExceeded, Fault, Unavailable
from ecrs.serving.served_model import ServedModel, check_golden
from ecrs.storage.vectors import NO_NEIGHBOURS, Neighbours, VectorStore

CHECK_TIMEOUT_S = 2.0

VECTOR_FRACTION = 0.5
"""Largest share of the remaining deadline that the vector channel may use if the other channels can replace
it."""


class Retriever:
    """Generates candidates with one bundle.

    Works without the vector channel while the user tower or the vector store fails, and while their versions
    differ from this bundle's: distances between vectors of two trainings look plausible and are meaningless.
    """

    def __init__(
        self, bundle: Bundle, generator: CandidateGenerator, user_tower: ServedModel, vectors: VectorStore
    ) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._generator = generator
        self._clock = BundleClock(bundle.as_of)
        self._user_tower = user_tower
        self._vectors = vectors
        self._refusal: str | None = "recall has not checked its versions yet"
        self._breaker = CircuitBreaker("vectors")

    async def candidates(
        self,
        user: User,
        n: int,
        deadline: Deadline,
        *,
        channel: str = "",
        now: int = 0,
        new_only: bool = False,
    ) -> RetrievedCandidates:
        """Return at most `n` candidates, best first, of all channels or of the one named by `channel`.

        The score of blended candidates is the estimated probability that the user does not buy the item, so
        that it ascends like a distance; candidates of a single channel have that channel's own scores. `now`:
        time of the request in Unix seconds, 0 for the current time. `new_only` leaves items that the user
        bought before out of blended candidates.

        Blended candidates may lack the vector channel, and then name it in `missing`. If `channel` is
        `vector` or `cold_start`, raises Unavailable or DeadlineExceeded instead.
        """
        rows = self._generator.catalogue.rows(user.aggregates.skus)
        interest = Interest.of(rows, user.aggregates.numbers, self._clock.now(now))
        if not channel:
            return await self._blended(user, interest, rows, n, deadline, new_only=new_only)
        nearest, nearest_cold_start = NO_NEIGHBOURS, NO_NEIGHBOURS
        if channel in (VECTOR, COLD_START):
            nearest, nearest_cold_start = await self._search(user, max(n, DEPTH), deadline, fraction=1.0)
        if channel == COLD_START:
            return self._cold_start_items(nearest_cold_start, interest, n)
        vector, new_skus = self._by_row(nearest)
        found = self._generator.single_channel(channel, interest, vector, n)
        return RetrievedCandidates.alone(channel, self._skus(found.item, new_skus), found.score)

    async def _blended(
        self,
        user: User,
        interest: Interest,
        interacted: np.ndarray,
        n: int,
        deadline: Deadline,
        *,
        new_only: bool,
    ) -> RetrievedCandidates:
        async def search() -> tuple[Neighbours, Neighbours, tuple[str, ...]]:
            try:
                return *await self._search(user, max(n, DEPTH), deadline, VECTOR_FRACTION), ()
            except (Unavailable, DeadlineExceeded):
                return NO_NEIGHBOURS, NO_NEIGHBOURS, (VECTOR,)

        async def run_table_channels() -> UserContext:
            await asyncio.sleep(0)  # send the call to the user tower or the vector store first
            return self._generator.user_context(interest, interacted, new_only=new_only)

        (nearest, nearest_cold_start, missing), context = await asyncio.gather(search(), run_table_channels())
        vector, new_skus = self._by_row(nearest)
        blended = self._generator.blend(context, vector, n)
        candidates = RetrievedCandidates.merged(blended, self._skus(blended.item, new_skus), missing)
        reserved = n // CANDIDATES_PER_COLD_START_ITEM
        cold_start = self._cold_start_items(nearest_cold_start, interest, reserved)
        return with_cold_start_items(candidates, cold_start, n)

    async def check(self) -> None:
        """Check that the golden rows give the outputs recorded at training, and that all versions agree.

        Raises a Fault if not; the vector channel is then refused until a later check passes. Also raises
        Unavailable while the circuit breaker is open.
        """
        try:
            await check_golden(self._user_tower, self._bundle.golden["user_tower"], CHECK_TIMEOUT_S)
            held = await self._vectors.version(CHECK_TIMEOUT_S)
            if held != (tower := self.version):
                raise Unavailable(f"versions differ: the collection holds {held}, the user tower is {tower}")
        except Fault as fault:
            self._refusal = fault.text
            raise
        self._refusal = None
        if self._breaker.is_open:
            raise Unavailable("calls to the user tower or the vector store fail")

    async def _search(
        self, user: User, n: int, deadline: Deadline, fraction: float
    ) -> tuple[Neighbours, Neighbours]:
        """Return the `n` nearest items and the `n` nearest cold-start items.

        Takes at most `fraction` of the remaining deadline. While the vector channel is refused, raises
        Unavailable with the reason.
        """
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        timeout_s = deadline.share("vector", CHECK_TIMEOUT_S, fraction)
        with self._breaker.guard(timeout_s):
            channel_deadline = Deadline.after(timeout_s, default_s=timeout_s)
            ids = self._bundle.encoder.users([user])
            (vector,) = await self._user_tower.infer(ids, channel_deadline.share("user_tower", timeout_s))
            search_s = channel_deadline.share("search", timeout_s)
            nearest, nearest_cold_start = await asyncio.gather(
                self._vectors.search(vector, n, search_s),
                self._vectors.search_cold_start(vector, n, search_s),
            )
        return nearest, nearest_cold_start

    def _cold_start_items(self, nearest: Neighbours, interest: Interest, n: int) -> RetrievedCandidates:
        temperature = self._bundle.manifest.temperature
        return best_cold_start_items(nearest, interest, self._generator.popular, temperature, n)

    def _by_row(self, neighbours: Neighbours) -> tuple[ScoredItems, list[str]]:
        """Return the neighbours by catalogue row, and the skus of those that the catalogue does not have.

        The latter are numbered from the end of the catalogue on, in the order of the returned skus.
        """
        rows = self._generator.catalogue.rows(neighbours.skus)
        new = np.flatnonzero(rows == NO_ID)
        rows[new] = len(self._generator.catalogue) + np.arange(len(new))
        return ScoredItems(rows, neighbours.distance), [neighbours.skus[index] for index in new.tolist()]

    def _skus(self, rows: np.ndarray, new_skus: Sequence[str]) -> list[str]:
        """Return the skus of rows numbered as by `_by_row`."""
        known = self._generator.catalogue.skus
        count = len(known)
        return [known[row] if row < count else new_skus[row - count] for row in rows.tolist()]
