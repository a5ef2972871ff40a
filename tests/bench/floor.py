"""The floors: what the stages of an answer cost when nothing is between them.

For each of some users the inputs of every stage are taken from the running platform once. A floor then
repeats the stages on them: two reads of the store, user tower, nearest vectors, ranker.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen

import faiss
import grpc
import numpy as np
import redis

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.rank_pb2_grpc import RankServiceStub
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.recall_pb2_grpc import RecallServiceStub
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from ecrs.kit.ports import PORTS
from ecrs.model.inprocess import InProcessModel
from ecrs.model.signature import ModelSignature
from ecrs.profiles import OUT_OF_STOCK_KEY, history_key, item_key, totals_key, user_key
from ecrs.rank.inputs import RankerInputs
from ecrs.ranking_features import Quantiles
from ecrs.recall.proposals import DEPTH
from ecrs.recall.vectors import read_vectors
from ecrs.wire import to_item, to_sources, to_user

CANDIDATES = 100
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Inputs:
    """One user's way, taken apart: store keys, the models' ids, and what each hop asks and answers."""

    user_keys: list[str]
    item_keys: list[str]
    skus: list[str]
    user_ids: np.ndarray
    ranker_ids: np.ndarray
    hops: list[tuple[bytes, bytes]]


def inputs(bundle: Bundle, user_id: str, ranker: RankerInputs) -> Inputs:
    """By asking the running platform's services, one after the other."""
    channels = {name: grpc.insecure_channel(f"127.0.0.1:{port}") for name, port in PORTS.items()}
    try:
        ask = UserModelRequest(user_id=user_id)
        known = UMServiceStub(channels["um"]).um_call(ask)
        recall = RecallRequest(user_info=known.user_info, request_num=CANDIDATES)
        found = RecallServiceStub(channels["recall"]).recall(recall)
        look_up = CMRequest(item_ids=[pair.nid for pair in found.score_pairs])
        records = CMServiceStub(channels["cm"]).cm_call(look_up)
        rank = RankRequest(user_info=known.user_info, item_infos=records.item_infos)
        rank.sources.CopyFrom(found.sources)
        scores = RankServiceStub(channels["rank"]).rank_predict(rank)
        question = ASRequest(user_id=user_id)
        answer = ASServiceStub(channels["gateway"]).as_call(question, timeout=5)
    finally:
        for channel in channels.values():
            channel.close()
    user, skus = to_user(known.user_info), list(look_up.item_ids)
    items = [to_item(info) for info in rank.item_infos]
    sources = to_sources(rank.sources, len(items))
    pairs = ((question, answer), (ask, known), (recall, found), (look_up, records), (rank, scores))
    return Inputs(
        [user_key(user_id), history_key(user_id), totals_key(user_id)],
        [item_key(sku) for sku in skus],
        skus,
        bundle.encoder.users([user]),
        ranker.ids(user, ranker.records(items), sources, bundle.as_of),
        [(request.SerializeToString(), reply.SerializeToString()) for request, reply in pairs],
    )


class Floor:
    """The stages raw, in this process, one after the other."""

    def __init__(self, bundle: Bundle, users: Sequence[str], store: redis.Redis) -> None:
        quantiles = Quantiles.load(bundle.path / "quantiles.json")
        ranker = RankerInputs(bundle.encoder, bundle.catalogue, quantiles)
        self.inputs = [inputs(bundle, user, ranker) for user in users]
        self._store = store
        self._user_tower, self._ranker = [
            InProcessModel(bundle.path / name, ModelSignature.load(bundle.path / name))
            for name in ("user_tower", "ranker")
        ]
        count = bundle.count("product_vectors.txt")
        _, vectors = read_vectors(bundle.lines("product_vectors.txt"), count)
        faiss.omp_set_num_threads(1)
        self._index = faiss.IndexFlatL2(vectors.shape[1])
        self._index.add(vectors)

    def answer(self, one: Inputs) -> None:
        self._store.mget(one.user_keys)
        vector = self._user_tower.run(one.user_ids)
        self._index.search(vector, DEPTH)
        pipeline = self._store.pipeline(transaction=False)
        pipeline.mget(one.item_keys)
        pipeline.smismember(OUT_OF_STOCK_KEY, one.skus)
        pipeline.execute()
        self._ranker.run(one.ranker_ids)


class FloorWithHops:
    """The floor, and one bare gRPC call a hop, of the same bytes, to processes that only answer them."""

    def __init__(self, floor: Floor, targets: Sequence[str]) -> None:
        self._floor = floor
        self._hops = [
            grpc.insecure_channel(target).unary_unary("/bench.Echo/echo", None, None) for target in targets
        ]

    def answer(self, one: Inputs) -> None:
        for hop, (request, reply) in zip(self._hops, one.hops, strict=True):
            # The size wanted goes ahead of the request's own bytes.
            hop(len(reply).to_bytes(4, "big") + request)
        self._floor.answer(one)


@contextmanager
def echoes(count: int) -> Iterator[list[str]]:
    """The targets of `count` echo servers, a process each."""
    command = [sys.executable, "-m", "tests.bench.echo"]
    processes = [Popen(command, stdout=PIPE, text=True, cwd=ROOT) for _ in range(count)]
    try:
        yield [f"127.0.0.1:{int(next(iter(process.stdout)))}" for process in processes if process.stdout]
    finally:
        for process in processes:
            process.terminate()
            process.wait()
