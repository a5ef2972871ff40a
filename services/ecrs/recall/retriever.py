"""A user to candidates: the tables' channels here, the vector channel by user tower and vector store."""

import asyncio
from collections.abc import Sequence

import numpy as np

from ecrs.bundle import Bundle
from ecrs.catalogue import NO_ID
from ecrs.clock import BundleClock
from ecrs.domain import User
from ecrs.kit.breaker import Breaker
from ecrs.kit.budget import Budget
from ecrs.kit.errors import Fault, OutOfTime, Unavailable
from ecrs.model.served import ServedModel, check_golden
from ecrs.recall.channels import Found, Interest
from ecrs.recall.domain import NEW, VECTOR, Candidates
from ecrs.recall.newcomers import SHARE, best_newcomers, with_newcomers
from ecrs.recall.proposals import DEPTH, Asked, Proposer
from ecrs.recall.vectors import NO_NEIGHBOURS, Neighbours, VectorStore

CHECK_TIMEOUT_S = 2.0

VECTOR_SHARE = 0.5
"""Of the time left, what user tower and vector store may take when other channels can stand in for them."""


class Retriever:
    """Does without the vector channel while its parts are away, and while the user tower, the collection
    and this bundle's encoder differ in version: distances between vectors of two trainings look right and
    mean nothing.
    """

    def __init__(
        self, bundle: Bundle, proposer: Proposer, user_tower: ServedModel, vectors: VectorStore
    ) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._proposer = proposer
        self._clock = BundleClock(bundle.as_of)
        self._user_tower = user_tower
        self._vectors = vectors
        self._refusal: Fault | None = Unavailable("recall has not checked its versions yet")
        self._breaker = Breaker("vectors")

    async def candidates(
        self, user: User, n: int, budget: Budget, *, channel: str = "", now: int = 0, new_only: bool = False
    ) -> Candidates:
        """At most `n` candidates, best first: of all channels, or of one.

        The score of merged candidates is the chance that they are not taken, so that it ascends as a
        distance does; of a channel alone it is the channel's own. Merged candidates may be without the
        vector channel; Unavailable or OutOfTime if that is the one that was asked for.
        """
        rows = self._proposer.catalogue.rows(user.totals.skus)
        interest = Interest.of(rows, user.totals.numbers, self._clock.now(now))
        if not channel:
            return await self._merged(user, interest, rows, n, budget, new_only=new_only)
        near, newcomers = NO_NEIGHBOURS, NO_NEIGHBOURS
        if channel in (VECTOR, NEW):
            near, newcomers = await self._near(user, max(n, DEPTH), budget, share=1.0)
        if channel == NEW:
            return best_newcomers(newcomers, interest, self._proposer.popular, n)
        vector, new_skus = self._found(near)
        found = self._proposer.channel(channel, interest, vector, n)
        return Candidates.alone(channel, self._skus(found.item, new_skus), found.score)

    async def _merged(
        self, user: User, interest: Interest, had: np.ndarray, n: int, budget: Budget, *, new_only: bool
    ) -> Candidates:
        async def near() -> tuple[Neighbours, Neighbours, tuple[str, ...]]:
            try:
                return *await self._near(user, max(n, DEPTH), budget, VECTOR_SHARE), ()
            except (Unavailable, OutOfTime):
                return NO_NEIGHBOURS, NO_NEIGHBOURS, (VECTOR,)

        async def asked() -> Asked:
            await asyncio.sleep(0)  # the question to the vector store, or the user tower's server, goes first
            return self._proposer.asked(interest, had, new_only=new_only)

        (all_items, newcomers, missing), tables = await asyncio.gather(near(), asked())
        vector, new_skus = self._found(all_items)
        merged = self._proposer.merged(tables, vector, n)
        candidates = Candidates.merged(merged, self._skus(merged.item, new_skus), missing)
        new = best_newcomers(newcomers, interest, self._proposer.popular, n // SHARE)
        return with_newcomers(candidates, new, n)

    async def check(self) -> None:
        """Golden rows come out right and the versions agree; else Unavailable, and no vector is asked for.
        Unavailable also while the breaker keeps calls away, whatever the parts say of themselves."""
        try:
            await check_golden(self._user_tower, self._bundle.golden["user_tower"], CHECK_TIMEOUT_S)
            held = await self._vectors.version(CHECK_TIMEOUT_S)
            if held != self.version:
                mine = self.version
                raise Unavailable(f"versions differ: the collection holds {held}, the user tower is {mine}")
        except Fault as fault:
            self._refusal = fault
            raise
        self._refusal = None
        if self._breaker.keeps_away:
            raise Unavailable("calls to user tower or vector store fail")

    async def _near(self, user: User, n: int, budget: Budget, share: float) -> tuple[Neighbours, Neighbours]:
        """The `n` nearest of all items, and of the newcomers, in a share of the time left."""
        if self._refusal:
            raise self._refusal
        timeout_s = budget.stage("vector", CHECK_TIMEOUT_S, share)
        with self._breaker.guard(timeout_s):
            part = Budget.of(timeout_s, default_s=timeout_s)
            ids = self._bundle.encoder.users([user])
            (vector,) = await self._user_tower.infer(ids, part.stage("user_tower", timeout_s))
            search_s = part.stage("search", timeout_s)
            all_items, newcomers = await asyncio.gather(
                self._vectors.search(vector, n, search_s), self._vectors.search_new(vector, n, search_s)
            )
        return all_items, newcomers

    def _found(self, near: Neighbours) -> tuple[Found, list[str]]:
        """Neighbours by row; products added after the bundle count on from the catalogue's end."""
        rows = self._proposer.catalogue.rows(near.skus)
        new = np.flatnonzero(rows == NO_ID)
        rows[new] = len(self._proposer.catalogue) + np.arange(len(new))
        return Found(rows, near.distance), [near.skus[place] for place in new.tolist()]

    def _skus(self, rows: np.ndarray, new_skus: Sequence[str]) -> list[str]:
        known = self._proposer.catalogue.skus
        count = len(known)
        return [known[row] if row < count else new_skus[row - count] for row in rows.tolist()]
