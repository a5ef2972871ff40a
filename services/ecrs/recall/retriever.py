"""A user to candidates: the tables' channels here, the vector channel by user tower and vector store."""

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
"""Of the time left, what user tower and vector store may take when other channels can stand in for them."""


class Retriever:
    """Does without the vector channel while its parts are away, and while the user tower, the collection
    and this bundle's encoder differ in version: distances between vectors of two trainings look right and
    mean nothing.
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
        """At most `n` candidates, best first: of all channels, or of one.

        The score of merged candidates is the chance that they are not taken, so that it ascends as a
        distance does; of a channel alone it is the channel's own. Merged candidates may be without the
        vector channel; Unavailable or DeadlineExceeded if that is the one that was asked for.
        """
        rows = self._generator.catalogue.rows(user.aggregates.skus)
        interest = Interest.of(rows, user.aggregates.numbers, self._clock.now(now))
        if not channel:
            return await self._merged(user, interest, rows, n, deadline, new_only=new_only)
        near, newcomers = NO_NEIGHBOURS, NO_NEIGHBOURS
        if channel in (VECTOR, COLD_START):
            near, newcomers = await self._near(user, max(n, DEPTH), deadline, share=1.0)
        if channel == COLD_START:
            return self._cold_start_items(newcomers, interest, n)
        vector, new_skus = self._found(near)
        found = self._generator.single_channel(channel, interest, vector, n)
        return RetrievedCandidates.alone(channel, self._skus(found.item, new_skus), found.score)

    async def _merged(
        self, user: User, interest: Interest, had: np.ndarray, n: int, deadline: Deadline, *, new_only: bool
    ) -> RetrievedCandidates:
        async def near() -> tuple[Neighbours, Neighbours, tuple[str, ...]]:
            try:
                return *await self._near(user, max(n, DEPTH), deadline, VECTOR_FRACTION), ()
            except (Unavailable, DeadlineExceeded):
                return NO_NEIGHBOURS, NO_NEIGHBOURS, (VECTOR,)

        async def asked() -> UserContext:
            await asyncio.sleep(0)  # the question to the vector store, or the user tower's server, goes first
            return self._generator.user_context(interest, had, new_only=new_only)

        (all_items, newcomers, missing), tables = await asyncio.gather(near(), asked())
        vector, new_skus = self._found(all_items)
        merged = self._generator.blend(tables, vector, n)
        candidates = RetrievedCandidates.merged(merged, self._skus(merged.item, new_skus), missing)
        new = self._cold_start_items(newcomers, interest, n // CANDIDATES_PER_COLD_START_ITEM)
        return with_cold_start_items(candidates, new, n)

    async def check(self) -> None:
        """Check that golden rows give the outputs seen at training and that the versions agree.

        Raises a Fault if not; the vector channel is refused then, until a later check passes. Raises
        Unavailable while the circuit breaker is open, too.
        """
        try:
            await check_golden(self._user_tower, self._bundle.golden["user_tower"], CHECK_TIMEOUT_S)
            held = await self._vectors.version(CHECK_TIMEOUT_S)
            if held != self.version:
                mine = self.version
                raise Unavailable(f"versions differ: the collection holds {held}, the user tower is {mine}")
        except Fault as fault:
            self._refusal = fault.text
            raise
        self._refusal = None
        if self._breaker.is_open:
            raise Unavailable("calls to user tower or vector store fail")

    async def _near(
        self, user: User, n: int, deadline: Deadline, share: float
    ) -> tuple[Neighbours, Neighbours]:
        """The `n` nearest items and the `n` nearest cold-start items, within `share` of the deadline.

        Raises Unavailable with the reason while the vector channel is refused.
        """
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        timeout_s = deadline.share("vector", CHECK_TIMEOUT_S, share)
        with self._breaker.guard(timeout_s):
            part = Deadline.after(timeout_s, default_s=timeout_s)
            ids = self._bundle.encoder.users([user])
            (vector,) = await self._user_tower.infer(ids, part.share("user_tower", timeout_s))
            search_s = part.share("search", timeout_s)
            all_items, newcomers = await asyncio.gather(
                self._vectors.search(vector, n, search_s),
                self._vectors.search_cold_start(vector, n, search_s),
            )
        return all_items, newcomers

    def _cold_start_items(self, near: Neighbours, interest: Interest, n: int) -> RetrievedCandidates:
        temperature = self._bundle.manifest.temperature
        return best_cold_start_items(near, interest, self._generator.popular, temperature, n)

    def _found(self, near: Neighbours) -> tuple[ScoredItems, list[str]]:
        """Neighbours by row; products added after the bundle count on from the catalogue's end."""
        rows = self._generator.catalogue.rows(near.skus)
        new = np.flatnonzero(rows == NO_ID)
        rows[new] = len(self._generator.catalogue) + np.arange(len(new))
        return ScoredItems(rows, near.distance), [near.skus[place] for place in new.tolist()]

    def _skus(self, rows: np.ndarray, new_skus: Sequence[str]) -> list[str]:
        known = self._generator.catalogue.skus
        count = len(known)
        return [known[row] if row < count else new_skus[row - count] for row in rows.tolist()]
