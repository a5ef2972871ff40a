"""The recall service over the tiny bundle's models, also with failing or mismatched dependencies."""

import asyncio
import time
from collections.abc import AsyncIterator
from traceback import walk_tb
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from ecrs.bundle import Bundle
from ecrs.contract.recall_pb2 import (
    RecallRequest,
    RecallResponse,
    RemoveVectorsRequest,
    UpsertVectorsRequest,
)
from ecrs.contract.recall_pb2_grpc import RecallServiceStub, add_RecallServiceServicer_to_server
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.aggregates import ORDERS, Aggregates
from ecrs.domain.entities import User
from ecrs.domain.files import parse_history
from ecrs.domain.provenance import Provenance
from ecrs.features.ranking import CHANNELS
from ecrs.recall.blending import CandidateGenerator, UserContext
from ecrs.recall.retriever import Retriever
from ecrs.recall.service import RecallService
from ecrs.recall.tables import load_candidate_generator
from ecrs.recall.vector_updates import VectorUpdater
from ecrs.rpc.breaker import FAILURES_TO_OPEN
from ecrs.rpc.errors import Fault, Unavailable
from ecrs.rpc.server import RunningService, Service
from ecrs.serving.models import open_model
from ecrs.serving.served_model import ServedModel
from ecrs.storage.vectors import NO_NEIGHBOURS, Neighbours, VectorStore, read_vectors
from ecrs.wire.messages import from_user, to_provenance
from tests.eventually import eventually
from tests.fakes import FakeVectors
from tests.service.conftest import Start


@pytest.fixture
async def user_tower(tiny: Bundle) -> AsyncIterator[ServedModel]:
    async with open_model("inprocess", tiny, "user_tower") as model:
        yield model


async def recall(
    start: Start, bundle: Bundle, user_tower: ServedModel, vectors: VectorStore
) -> tuple[RecallServiceStub, RunningService]:
    retriever = Retriever(bundle, load_candidate_generator(bundle, bundle.catalogue), user_tower, vectors)
    updates = VectorUpdater(bundle, user_tower.signature.width, vectors)
    servicer = RecallService(retriever, updates, call_timeout_s=5.0)
    service = Service(
        "recall",
        "recall.RecallService",
        lambda server: add_RecallServiceServicer_to_server(servicer, server),
        dependencies={"vectors": retriever.check},
    )
    channel, running = await start(service)
    return RecallServiceStub(channel), running


def known_user(bundle: Bundle) -> User:
    history = dict(map(parse_history, bundle.lines("histories.dat")))["8888"]
    return User("8888", history=history, aggregates=Aggregates().plus(history))


async def serving(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: VectorStore
) -> RecallServiceStub:
    client, running = await recall(start, tiny, user_tower, vectors)
    await running.serving()
    return client


@pytest.fixture
def vectors(tiny: Bundle) -> FakeVectors:
    return FakeVectors(
        *read_vectors(tiny.lines("product_vectors.txt"), tiny.count("product_vectors.txt")),
        bundle_version=tiny.version,
    )


async def test_vector_candidates_are_the_nearest_items_nearest_first(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    user = known_user(tiny)
    reply = await stub.recall(RecallRequest(user_info=from_user(user), recall_type="vector"))
    (vector,) = await user_tower.infer(tiny.encoder.users([user]), 5.0)
    nearest = np.sort(np.square(vectors.vectors - vector).sum(axis=1))[:100]
    assert [pair.score for pair in reply.score_pairs] == pytest.approx(nearest.tolist(), abs=1e-5)
    assert reply.error.code == 200
    assert reply.bundle_version == tiny.version
    assert provenance_of(reply)[0] == [("vector", 1, reply.score_pairs[0].score)]


async def test_the_vector_search_runs_while_the_other_channels_are_computed(
    start: Start,
    tiny: Bundle,
    user_tower: ServedModel,
    vectors: FakeVectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub, started = await serving(start, tiny, user_tower, vectors), list[str]()

    async def search(*_: object) -> Neighbours:
        started.append("search")
        return NO_NEIGHBOURS

    def user_context(generator: CandidateGenerator, *args: Any, **kwargs: Any) -> UserContext:
        started.append("tables")
        return original(generator, *args, **kwargs)

    original = CandidateGenerator.user_context
    monkeypatch.setattr(vectors, "search", search)
    monkeypatch.setattr(CandidateGenerator, "user_context", user_context)
    reply = await stub.recall(RecallRequest(user_info=from_user(known_user(tiny))))
    assert reply.error.code == 200
    assert started == ["search", "tables"]


def candidate_counts() -> dict[str, float]:
    """Return the counter of candidates by channel, all of which exist from the start."""
    counts = {}
    for channel in (*CHANNELS, "cold_start"):
        value = REGISTRY.get_sample_value("ecrs_candidates_total", {"channel": channel})
        assert value is not None
        counts[channel] = value
    return counts


@pytest.mark.parametrize("channel", CHANNELS)
async def test_each_channel_can_be_requested_alone(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors, channel: str
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    user = known_user(tiny)
    reply = await stub.recall(RecallRequest(user_info=from_user(user), recall_type=channel, request_num=5))
    assert reply.error.code == 200
    positions = [(name, position) for ((name, position, _),) in provenance_of(reply)]
    assert positions == [(channel, n) for n in range(1, 6)]
    if channel == "repurchase":
        assert {pair.nid for pair in reply.score_pairs} <= set(user.aggregates.skus)


async def test_channels_are_blended_and_each_candidate_has_its_provenance(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    user = known_user(tiny)
    before = candidate_counts()
    reply = await stub.recall(RecallRequest(user_info=from_user(user), request_num=300))
    skus = [pair.nid for pair in reply.score_pairs]
    assert len(skus) == len(set(skus))
    scores = [pair.score for pair in reply.score_pairs]
    assert scores == sorted(scores)
    channels_by_sku = {
        sku: {channel for channel, *_ in provenance}
        for sku, provenance in zip(skus, provenance_of(reply), strict=True)
    }
    assert set().union(*channels_by_sku.values()) == set(CHANNELS)
    for channel, count in candidate_counts().items():
        assert count - before[channel] == sum(channel in channels for channels in channels_by_sku.values())
    assert all(channels_by_sku.values())
    for sku in user.aggregates.skus:
        assert channels_by_sku.get(sku) in (None, {"repurchase"})


async def test_new_only_excludes_bought_items(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    user = known_user(tiny)
    reply = await stub.recall(RecallRequest(user_info=from_user(user), request_num=300, new_only=True))
    assert len(reply.score_pairs) > 100
    bought = {
        sku for sku, row in zip(user.aggregates.skus, user.aggregates.numbers, strict=True) if row[ORDERS]
    }
    assert 0 < len(bought) < len(user.aggregates)
    assert {pair.nid for pair in reply.score_pairs} & set(user.aggregates.skus) <= set(
        user.aggregates.skus
    ) - bought


async def test_an_item_that_the_bundle_does_not_contain_is_recommended(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    user = known_user(tiny)
    (vector,) = await user_tower.infer(tiny.encoder.users([user]), 5.0)
    stub = await serving(start, tiny, user_tower, vectors)
    upserted = await stub.upsert_vectors(upsert(tiny.version, "brand-new", vector.tolist()))
    assert (upserted.error.code, upserted.bundle_version) == (200, tiny.version)
    reply = await stub.recall(RecallRequest(user_info=from_user(user), request_num=300))
    pairs = zip(reply.score_pairs, provenance_of(reply), strict=True)
    (((channel, position, _),),) = [provenance for pair, provenance in pairs if pair.nid == "brand-new"]
    assert (channel, position) == ("vector", 1)


def upsert(version: str, sku: str, *vectors: list[float]) -> UpsertVectorsRequest:
    """Return a request that sets the vector of `sku` once per vector; more than one is invalid."""
    pairs = [UpsertVectorsRequest.ItemVector(sku_id=sku, vector=vector) for vector in vectors]
    return UpsertVectorsRequest(bundle_version=version, vectors=pairs)


async def test_a_cold_start_item_is_a_candidate_however_distant_its_vector_is(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    user = known_user(tiny)
    (vector,) = await user_tower.infer(tiny.encoder.users([user]), 5.0)
    stub = await serving(start, tiny, user_tower, vectors)
    assert (await stub.upsert_vectors(upsert(tiny.version, "far", (-vector).tolist()))).error.code == 200
    assert (await stub.upsert_vectors(upsert(tiny.version, "99654", vector.tolist()))).error.code == 200
    reply = await stub.recall(RecallRequest(user_info=from_user(user)))
    assert len(reply.score_pairs) == 100
    assert reply.score_pairs[-1].nid == "far"
    assert [provenance[:2] for provenance in provenance_of(reply)[-1]] == [("cold_start", 1)]
    alone = await stub.recall(RecallRequest(user_info=from_user(user), recall_type="cold_start"))
    assert [pair.nid for pair in alone.score_pairs] == ["far"]


async def test_an_item_without_its_vector_is_not_found_by_the_vector_channel(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    request = RecallRequest(user_info=from_user(known_user(tiny)), recall_type="vector")
    nearest = (await stub.recall(request)).score_pairs[0].nid
    removal = RemoveVectorsRequest(bundle_version=tiny.version, item_ids=[nearest, "never there"])
    assert (await stub.remove_vectors(removal)).error.code == 200
    assert nearest not in {pair.nid for pair in (await stub.recall(request)).score_pairs}


WIDTH = 32
GOOD = [1.0] + [0.0] * (WIDTH - 1)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (upsert("", "new"), "vectors: expected 1 to 1000 products, got 0"),
        (upsert("", "new", *[GOOD] * 1001), "vectors: expected 1 to 1000 products, got 1001"),
        (upsert("", "new", GOOD, GOOD), "vectors[1]: sku 'new': twice in one call"),
        (upsert("", "", GOOD), "vectors[0]: sku '': it is empty"),
        (upsert("", "new", GOOD[1:]), "vectors: sku 'new': 31 values, expected 32"),
        (upsert("", "new", [*GOOD[1:], float("nan")]), "vectors: sku 'new': a value is not finite"),
        (RemoveVectorsRequest(), "item_ids: expected 1 to 1000 products, got 0"),
        (RemoveVectorsRequest(item_ids=["a", "a"]), "item_ids[1]: sku 'a': twice in one call"),
    ],
)
async def test_invalid_vector_changes_are_a_bad_request(
    start: Start,
    tiny: Bundle,
    user_tower: ServedModel,
    vectors: FakeVectors,
    request_: UpsertVectorsRequest | RemoveVectorsRequest,
    reason: str,
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    request_.bundle_version = tiny.version
    upserts = isinstance(request_, UpsertVectorsRequest)
    reply = await (stub.upsert_vectors if upserts else stub.remove_vectors)(request_)
    assert (reply.error.code, reply.error.text) == (400, reason)
    assert await vectors.count(1.0) == tiny.count("product_vectors.txt")


async def test_vectors_of_another_bundle_are_refused(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    other = "20200101_000000_00000000"
    for reply in (
        await stub.upsert_vectors(upsert(other, "new", GOOD)),
        await stub.remove_vectors(RemoveVectorsRequest(bundle_version=other, item_ids=["1"])),
    ):
        assert reply.error.code == 503
        assert other in reply.error.text
        assert tiny.version in reply.error.text
    assert await vectors.count(1.0) == tiny.count("product_vectors.txt")


@pytest.mark.parametrize(("request_num", "expected"), [(0, 100), (7, 7)])
async def test_request_num_sets_the_number_of_candidates(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors, request_num: int, expected: int
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    reply = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0"), request_num=request_num))
    assert len({pair.nid for pair in reply.score_pairs}) == expected


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (RecallRequest(request_num=1001), "request_num: at most 1000, got 1001"),
        (
            RecallRequest(recall_type="magic"),
            "recall_type: 'magic' is not one of cold_start, popular, repurchase, similar, vector",
        ),
    ],
)
async def test_invalid_request_fields_are_a_bad_request(
    start: Start,
    tiny: Bundle,
    user_tower: ServedModel,
    vectors: FakeVectors,
    request_: RecallRequest,
    reason: str,
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    reply = await stub.recall(request_)
    assert (reply.error.code, reply.error.text) == (400, reason)


async def test_a_history_changes_the_candidates_of_an_anonymous_user(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    by_profile = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0")))
    session = from_user(known_user(tiny))
    session.user_id = ""
    by_session = await stub.recall(RecallRequest(user_info=session))
    assert [pair.nid for pair in by_profile.score_pairs] != [pair.nid for pair in by_session.score_pairs]


async def test_a_collection_of_another_version_is_not_searched_until_it_matches(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    vectors.bundle_version = "20200101_000000_00000000"
    stub, running = await recall(start, tiny, user_tower, vectors)

    async def refused() -> bool:
        return "versions differ" in running.missing["vectors"]

    await eventually(refused)
    alone = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0"), recall_type="vector"))
    assert alone.error.code == 503
    assert vectors.bundle_version in alone.error.text
    assert tiny.version in alone.error.text
    blended = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0")))
    assert (blended.error.code, blended.missing_channels) == (200, ["vector"])
    assert not channels_of(blended) & {"vector", "cold_start"}

    vectors.bundle_version = tiny.version
    await running.serving()
    blended = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0")))
    assert (blended.error.code, blended.missing_channels) == (200, [])
    assert "vector" in channels_of(blended)


async def test_refused_requests_do_not_share_a_growing_traceback(
    start: Start,
    tiny: Bundle,
    user_tower: ServedModel,
    vectors: FakeVectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception object that is raised again would keep the frames of every earlier raise."""
    frames: list[int] = []
    answer = RecallService.recall

    async def observed(*call: Any) -> RecallResponse:
        try:
            return await answer(*call)
        except Fault as fault:
            frames.append(len(list(walk_tb(fault.__traceback__))))
            raise

    monkeypatch.setattr(RecallService, "recall", observed)
    vectors.bundle_version = "20200101_000000_00000000"
    stub, _ = await recall(start, tiny, user_tower, vectors)
    for _ in range(10):
        await asyncio.gather(*(stub.recall(RecallRequest(recall_type="vector")) for _ in range(100)))
    assert len(frames) == 1_000
    assert set(frames) == {frames[0]}


def channels_of(reply: RecallResponse) -> set[str]:
    return {channel for provenance in provenance_of(reply) for channel, *_ in provenance}


def provenance_of(reply: RecallResponse) -> list[list[Provenance]]:
    """Return for each candidate the channels that found it."""
    return to_provenance(reply.provenance, len(reply.score_pairs)).entries()


async def test_recall_answers_without_its_vector_store_until_that_is_back(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    vectors.trouble.fault = Unavailable("Milvus is unavailable")
    user = from_user(known_user(tiny))
    blended = await stub.recall(RecallRequest(user_info=user))
    assert (blended.error.code, blended.missing_channels) == (200, ["vector"])
    assert len(blended.score_pairs) == 100
    assert channels_of(blended) == {"repurchase", "similar", "popular"}
    alone = await stub.recall(RecallRequest(user_info=user, recall_type="vector"))
    assert (alone.error.code, alone.error.text) == (503, "Milvus is unavailable")

    vectors.trouble.fault = None

    async def back() -> bool:
        return not (await stub.recall(RecallRequest(user_info=user))).missing_channels

    await eventually(back)


async def test_a_hanging_vector_store_leaves_time_for_the_other_channels(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    vectors.trouble.delay_s = 60.0
    user = from_user(known_user(tiny))
    for _ in range(FAILURES_TO_OPEN):
        merged = await stub.recall(RecallRequest(user_info=user), timeout=0.5)
        assert merged.missing_channels == ["vector"]
    begun = time.monotonic()
    merged = await stub.recall(RecallRequest(user_info=user, recall_type="vector"), timeout=5.0)
    assert merged.error.code == 503
    assert "circuit breaker is open" in merged.error.text
    assert time.monotonic() - begun < 1


async def test_the_callers_deadline_is_met(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    vectors.trouble.delay_s = 60.0
    begun = time.monotonic()
    call = stub.recall(RecallRequest(user_info=UserInfo(age="5.0"), recall_type="vector"), timeout=0.2)
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    if isinstance(outcome, grpc.aio.AioRpcError):  # the client noticed first
        assert outcome.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        assert outcome.error.code == 504
    assert time.monotonic() - begun < 2
