"""The ancestor: gives the same answers as ECRS, with the design of the original demo that ECRS descends from.

It was written for the benchmark and is not meant for other use. From the demo it has: five synchronous gRPC
servers, one process each, with 40 threads; a new channel and a new stub for every call to another service;
one GET per item, parsed with the standard library's JSON, without a cache. Like the demo, it keeps between
calls only the clients of the stores and, where the profile runs models in the process, the models.

The computation and the messages are those of ECRS (tests/bench/work.py, ecrs.wire). The demo retrieved by
vectors only and gave the ranker less input; with the same work, the two differ in their design alone. One
detail favours the ancestor: it reads the out-of-stock flags of all items in one call, because the demo had no
such flags.

python -m tests.bench.ancestor SERVICE CANDIDATES [NAME=TARGET …]: serves, and prints its port.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceServicer, add_ASServiceServicer_to_server
from ecrs.contract.cm_pb2 import CMRequest, CMResponse
from ecrs.contract.cm_pb2_grpc import CMServiceServicer, CMServiceStub, add_CMServiceServicer_to_server
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest, RankResponse
from ecrs.contract.rank_pb2_grpc import (
    RankServiceServicer,
    RankServiceStub,
    add_RankServiceServicer_to_server,
)
from ecrs.contract.recall_pb2 import RecallRequest, RecallResponse
from ecrs.contract.recall_pb2_grpc import (
    RecallServiceServicer,
    RecallServiceStub,
    add_RecallServiceServicer_to_server,
)
from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceServicer, UMServiceStub, add_UMServiceServicer_to_server
from ecrs.contract.user_info_pb2 import Interaction, UserInfo
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, Aggregates
from ecrs.domain.sizes import DEFAULT_ITEMS
from ecrs.storage.records import OUT_OF_STOCK_KEY, aggregates_key, history_key, item_key, user_key
from ecrs.wire.messages import from_aggregates, from_provenance, to_item, to_provenance, to_user
from tests.bench.direct import Settings, open_model, open_store, open_vectors
from tests.bench.processes import serving
from tests.bench.work import RankWork, RecallWork

THREADS = 40
"""Threads per server; further concurrent calls are refused."""


class UM(UMServiceServicer):
    def __init__(self, settings: Settings) -> None:
        self._store = open_store(settings)
        self._version = Bundle.open(settings.bundle).version

    def um_call(self, request: UserModelRequest, context: grpc.ServicerContext) -> UserModelResponse:
        user = request.user_id
        info = UserInfo(**self._read(user_key(user), {}))
        for sku, ts, action in self._read(history_key(user, self._version), []):
            info.history.append(Interaction(sku_id=sku, ts=ts, type=action))
        if columns := self._read(aggregates_key(user, self._version), {}):
            numbers = np.array([columns[name] for name in AGGREGATE_COLUMNS], dtype=np.float64).T
            info.aggregates.CopyFrom(from_aggregates(Aggregates(tuple(columns["sku_ids"]), numbers)))
        return UserModelResponse(error={"code": 200}, user_info=info)

    def _read(self, key: str, default: Any) -> Any:
        raw = self._store.get(key)
        return default if raw is None else json.loads(raw)


class CM(CMServiceServicer):
    def __init__(self, settings: Settings) -> None:
        self._store = open_store(settings)

    def cm_call(self, request: CMRequest, context: grpc.ServicerContext) -> CMResponse:
        reply = CMResponse(error={"code": 200})
        for sku in request.item_ids:
            reply.item_infos.append(ItemInfo(**json.loads(self._store.get(item_key(sku)))))
        out_of_stock = self._store.smismember(OUT_OF_STOCK_KEY, list(request.item_ids))
        for info, out in zip(reply.item_infos, out_of_stock, strict=True):
            info.out_of_stock = bool(out)
        return reply


class Recall(RecallServiceServicer):
    def __init__(self, settings: Settings) -> None:
        bundle = Bundle.open(settings.bundle)
        self._work = RecallWork(bundle)
        self._user_tower = open_model(settings.user_tower, bundle, "user_tower")
        self._nearest = open_vectors(settings, bundle)

    def recall(self, request: RecallRequest, context: grpc.ServicerContext) -> RecallResponse:
        user = to_user(request.user_info)
        nearest, distances = self._nearest(self._user_tower(self._work.user_ids(user)))
        candidates = self._work.candidates(user, nearest, distances, request.request_num)
        reply = RecallResponse(error={"code": 200}, provenance=from_provenance(candidates.provenance))
        for sku, score in zip(candidates.skus, candidates.score.tolist(), strict=True):
            reply.score_pairs.add(nid=sku, score=score)
        return reply


class Rank(RankServiceServicer):
    def __init__(self, settings: Settings) -> None:
        bundle = Bundle.open(settings.bundle)
        self._work = RankWork(bundle)
        self._model = open_model(settings.ranker, bundle, "ranker")

    def rank_predict(self, request: RankRequest, context: grpc.ServicerContext) -> RankResponse:
        items = [to_item(info) for info in request.item_infos]
        provenance = to_provenance(request.provenance, len(items))
        scores = self._model(self._work.pair_ids(to_user(request.user_info), items, provenance))
        reply = RankResponse(error={"code": 200})
        for item, score in zip(items, scores[:, 0].tolist(), strict=True):
            reply.score_pairs.add(nid=item.sku, score=score)
        reply.score_pairs.sort(key=lambda pair: -pair.score)
        return reply


class AS(ASServiceServicer):
    def __init__(self, candidates: int, targets: Mapping[str, str]) -> None:
        self._candidates = candidates
        self._targets = targets

    def as_call(self, request: ASRequest, context: grpc.ServicerContext) -> ASResponse:
        with grpc.insecure_channel(self._targets["um"]) as channel:
            user = UMServiceStub(channel).um_call(UserModelRequest(user_id=request.user_id)).user_info
        with grpc.insecure_channel(self._targets["recall"]) as channel:
            recall_request = RecallRequest(user_info=user, request_num=self._candidates)
            recalled = RecallServiceStub(channel).recall(recall_request)
        skus = [pair.nid for pair in recalled.score_pairs]
        with grpc.insecure_channel(self._targets["cm"]) as channel:
            items = CMServiceStub(channel).cm_call(CMRequest(item_ids=skus)).item_infos
        in_stock = [row for row, item in enumerate(items) if not item.out_of_stock]
        provenance = to_provenance(recalled.provenance, len(skus)).take(in_stock)
        available = {items[row].sku_id: items[row] for row in in_stock}
        with grpc.insecure_channel(self._targets["rank"]) as channel:
            rank_request = RankRequest(
                user_info=user, item_infos=available.values(), provenance=from_provenance(provenance)
            )
            scores = RankServiceStub(channel).rank_predict(rank_request).score_pairs
        provenance_of = dict(zip(available, provenance.entries(), strict=True))
        reply = ASResponse(error={"code": 200})
        for pair in scores[: request.request_num or DEFAULT_ITEMS]:
            info = reply.item_infos.add()
            info.CopyFrom(available[pair.nid])
            info.rank_score = pair.score
            for channel_name, position, score in provenance_of[pair.nid]:
                info.provenance.add(channel=channel_name, position=position, score=score)
        return reply


GATEWAY = "gateway"
_SERVICES: dict[str, tuple[Callable[[Settings], Any], Callable[[Any, grpc.Server], None]]] = {
    "um": (UM, add_UMServiceServicer_to_server),
    "cm": (CM, add_CMServiceServicer_to_server),
    "recall": (Recall, add_RecallServiceServicer_to_server),
    "rank": (Rank, add_RankServiceServicer_to_server),
}


def serve(name: str, candidates: int, targets: Mapping[str, str]) -> None:
    """Serve one service, print its port, and return only when the process is terminated."""
    server = grpc.server(ThreadPoolExecutor(THREADS), maximum_concurrent_rpcs=THREADS)
    if name == GATEWAY:
        add_ASServiceServicer_to_server(AS(candidates, targets), server)
    else:
        build, register = _SERVICES[name]
        register(build(Settings()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


@dataclass(frozen=True)
class Ancestor:
    """The target of the running ancestor's gateway, and its process ids by service."""

    gateway: str
    processes: dict[str, int]


@contextmanager
def ancestor(environment: Mapping[str, str], candidates: int) -> Iterator[Ancestor]:
    """Run the five services, with the stores and models that `environment` names."""
    command = ["tests.bench.ancestor"]
    with serving({name: [*command, name, str(candidates)] for name in _SERVICES}, environment) as services:
        targets = [f"{name}={service.target}" for name, service in services.items()]
        with serving({GATEWAY: [*command, GATEWAY, str(candidates), *targets]}) as gateway:
            pids = {name: process.pid for name, process in (services | gateway).items()}
            yield Ancestor(gateway[GATEWAY].target, pids)


if __name__ == "__main__":
    service, candidates, *targets = sys.argv[1:]
    serve(service, int(candidates), dict(target.split("=", 1) for target in targets))
