"""The vector channel: a user to a vector, a vector to its nearest items, all of one version."""

from ecrs.bundle import Bundle
from ecrs.domain import User
from ecrs.kit.budget import Budget
from ecrs.kit.errors import Fault, Unavailable
from ecrs.model.served import ServedModel, check_golden
from ecrs.recall.domain import VECTOR, Candidate
from ecrs.recall.vectors import VectorStore

CHECK_TIMEOUT_S = 2.0


class Retriever:
    """Refuses while the user tower, the collection and this bundle's encoder differ in version:

    distances between vectors of two trainings look right and mean nothing.
    """

    def __init__(self, bundle: Bundle, user_tower: ServedModel, vectors: VectorStore) -> None:
        self.version = bundle.version
        self._bundle = bundle
        self._user_tower = user_tower
        self._vectors = vectors
        self._refusal: Fault | None = Unavailable("recall has not checked its versions yet")

    async def candidates(self, user: User, n: int, budget: Budget) -> list[Candidate]:
        """The `n` items nearest to the user, nearest first; the score is the squared L2 distance."""
        if self._refusal:
            raise self._refusal
        ids = self._bundle.encoder.users([user])
        (vector,) = await self._user_tower.infer(ids, budget.stage("user_tower", cap_s=CHECK_TIMEOUT_S))
        found = await self._vectors.search(vector, n, budget.stage("search", cap_s=CHECK_TIMEOUT_S))
        return [
            Candidate(neighbour.sku, neighbour.distance, VECTOR, position)
            for position, neighbour in enumerate(found, 1)
        ]

    async def check(self) -> None:
        """Golden rows come out right and the versions agree; else Unavailable, and `candidates` refuses."""
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
