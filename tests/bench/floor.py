"""The floors: the cost of the stages of an answer without the platform around them.

tests/bench/record.py records once, for some users, how the running platform answers them. A floor then
repeats the stages: two reads of the store, user tower, nearest vectors, ranker. The models get the bundle's
golden rows as input, because the cost of an inference does not depend on the user.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import numpy as np

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASResponse
from ecrs.storage.records import (
    BUNDLE_KEY,
    OUT_OF_STOCK_KEY,
    aggregates_key,
    history_key,
    item_key,
    user_key,
)
from tests.bench.direct import Settings, open_model, open_store, open_vectors
from tests.bench.processes import serving
from tests.bench.record import Hop


@dataclass(frozen=True)
class Inputs:
    """The inputs of the stages for one user: keys of the store, and the request and reply of each hop."""

    user_keys: list[str]
    item_keys: list[str]
    skus: list[str]
    hops: list[Hop]

    @classmethod
    def of(cls, user_id: str, answer: ASResponse, hops: list[Hop]) -> "Inputs":
        skus = [item.sku_id for item in answer.item_infos]
        derived = [make(user_id, answer.bundle_version) for make in (history_key, aggregates_key)]
        user_keys = [BUNDLE_KEY, user_key(user_id), *derived]
        return cls(user_keys, [item_key(sku) for sku in skus], skus, hops)


class Floor:
    """Runs the bare stages in this process, one after the other."""

    def __init__(self, settings: Settings, bundle: Bundle, candidates: int) -> None:
        self._store = open_store(settings)
        self._user_tower = open_model(settings.user_tower, bundle, "user_tower")
        self._nearest = open_vectors(settings, bundle)
        self._ranker = open_model(settings.ranker, bundle, "ranker")
        users, pairs = (np.array(bundle.golden[name]["ids"]) for name in ("user_tower", "ranker"))
        self._user_ids = np.ascontiguousarray(users[:1], dtype=np.int64)
        self._pair_ids = np.resize(pairs, (candidates, pairs.shape[1])).astype(np.int64)

    def answer(self, inputs: Inputs) -> None:
        self._store.mget(inputs.user_keys)
        self._nearest(self._user_tower(self._user_ids))
        pipeline = self._store.pipeline(transaction=False)
        pipeline.mget(inputs.item_keys)
        pipeline.smismember(OUT_OF_STOCK_KEY, inputs.skus)
        pipeline.execute()
        self._ranker(self._pair_ids)


class FloorWithHops:
    """Runs the floor, and for each hop a bare gRPC call with as many bytes to a process that only replies."""

    def __init__(self, floor: Floor, targets: Mapping[str, str]) -> None:
        self._floor = floor
        self._hops = {
            service: grpc.insecure_channel(target).unary_unary("/bench.Echo/echo", None, None)
            for service, target in targets.items()
        }

    def answer(self, inputs: Inputs) -> None:
        for hop in inputs.hops:
            # The echo server reads the size of its reply from the first four bytes.
            self._hops[hop.service](len(hop.reply).to_bytes(4, "big") + hop.request)
        self._floor.answer(inputs)


@contextmanager
def echoes(services: Sequence[str]) -> Iterator[dict[str, str]]:
    """Run an echo server process per service; yields their targets by service."""
    with serving({service: ["tests.bench.echo"] for service in services}) as processes:
        yield {service: process.target for service, process in processes.items()}
