"""recall over the tiny bundle's own models, and when its parts disagree."""

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


async def test_candidates_are_the_nearest_vectors_nearest_first(
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
    assert proposed(reply)[0] == [("vector", 1, reply.score_pairs[0].score)]


async def test_the_search_is_under_way_while_the_tables_are_asked(
    start: Start,
    tiny: Bundle,
    user_tower: ServedModel,
    vectors: FakeVectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub, begun = await serving(start, tiny, user_tower, vectors), list[str]()

    async def searched(*_: object) -> Neighbours:
        begun.append("search")
        return NO_NEIGHBOURS

    def asked(generator: CandidateGenerator, *of: Any, **how: Any) -> UserContext:
        begun.append("tables")
        return ask(generator, *of, **how)

    ask = CandidateGenerator.user_context
    monkeypatch.setattr(vectors, "search", searched)
    monkeypatch.setattr(CandidateGenerator, "user_context", asked)
    reply = await stub.recall(RecallRequest(user_info=from_user(known_user(tiny))))
    assert reply.error.code == 200
    assert begun == ["search", "tables"]


def counted() -> dict[str, float]:
    """Candidates so far, by channel; each is there from the start."""
    counts = {}
    for channel in (*CHANNELS, "cold_start"):
        value = REGISTRY.get_sample_value("ecrs_candidates_total", {"channel": channel})
        assert value is not None
        counts[channel] = value
    return counts


@pytest.mark.parametrize("channel", CHANNELS)
async def test_each_channel_can_be_asked_alone(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors, channel: str
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    user = known_user(tiny)
    reply = await stub.recall(RecallRequest(user_info=from_user(user), recall_type=channel, request_num=5))
    assert reply.error.code == 200
    assert [(name, place) for ((name, place, _),) in proposed(reply)] == [(channel, n) for n in range(1, 6)]
    if channel == "repurchase":
        assert {pair.nid for pair in reply.score_pairs} <= set(user.aggregates.skus)


async def test_channels_merge_and_each_candidate_says_who_found_it(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    user = known_user(tiny)
    before = counted()
    reply = await stub.recall(RecallRequest(user_info=from_user(user), request_num=300))
    skus = [pair.nid for pair in reply.score_pairs]
    assert len(skus) == len(set(skus))
    scores = [pair.score for pair in reply.score_pairs]
    assert scores == sorted(scores)
    found = {sku: {channel for channel, *_ in of} for sku, of in zip(skus, proposed(reply), strict=True)}
    assert set().union(*found.values()) == set(CHANNELS)
    for channel, count in counted().items():
        assert count - before[channel] == sum(channel in channels for channels in found.values())
    assert all(found.values())
    assert all(channels == {"repurchase"} for sku, channels in found.items() if sku in user.aggregates.skus)


async def test_new_only_leaves_out_what_the_user_bought(
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


async def test_a_product_that_the_bundle_does_not_know_is_proposed(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    user = known_user(tiny)
    (vector,) = await user_tower.infer(tiny.encoder.users([user]), 5.0)
    stub = await serving(start, tiny, user_tower, vectors)
    taken = await stub.upsert_vectors(upsert(tiny.version, "brand-new", vector.tolist()))
    assert (taken.error.code, taken.bundle_version) == (200, tiny.version)
    reply = await stub.recall(RecallRequest(user_info=from_user(user), request_num=300))
    pairs = zip(reply.score_pairs, proposed(reply), strict=True)
    (((channel, position, _),),) = [of for pair, of in pairs if pair.nid == "brand-new"]
    assert (channel, position) == ("vector", 1)


def upsert(version: str, sku: str, *vectors: list[float]) -> UpsertVectorsRequest:
    """Under one sku, so many times; more than one is a fault."""
    pairs = [UpsertVectorsRequest.ItemVector(sku_id=sku, vector=vector) for vector in vectors]
    return UpsertVectorsRequest(bundle_version=version, vectors=pairs)


async def test_a_newcomer_is_among_a_hundred_however_far_its_vector_is(
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
    assert [source[:2] for source in proposed(reply)[-1]] == [("cold_start", 1)]
    alone = await stub.recall(RecallRequest(user_info=from_user(user), recall_type="cold_start"))
    assert [pair.nid for pair in alone.score_pairs] == ["far"]


async def test_a_product_whose_vector_is_removed_is_not_proposed_by_it(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    question = RecallRequest(user_info=from_user(known_user(tiny)), recall_type="vector")
    nearest = (await stub.recall(question)).score_pairs[0].nid
    request = RemoveVectorsRequest(bundle_version=tiny.version, item_ids=[nearest, "never there"])
    assert (await stub.remove_vectors(request)).error.code == 200
    assert nearest not in {pair.nid for pair in (await stub.recall(question)).score_pairs}


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
async def test_vectors_that_cannot_be_kept_are_a_bad_request(
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


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (7, 7)])
async def test_request_num_is_how_many(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors, asked: int, given: int
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    reply = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0"), request_num=asked))
    assert len({pair.nid for pair in reply.score_pairs}) == given


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
async def test_what_cannot_be_asked_is_a_bad_request(
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


async def test_history_changes_what_an_anonymous_session_gets(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    profile = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0")))
    session = from_user(known_user(tiny))
    session.user_id = ""
    clicked = await stub.recall(RecallRequest(user_info=session))
    assert [p.nid for p in profile.score_pairs] != [p.nid for p in clicked.score_pairs]


async def test_a_collection_of_another_version_is_not_asked_until_it_is_the_same(
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
    merged = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0")))
    assert (merged.error.code, merged.missing_channels) == (200, ["vector"])
    assert not channels_of(merged) & {"vector", "cold_start"}

    vectors.bundle_version = tiny.version
    await running.serving()
    merged = await stub.recall(RecallRequest(user_info=UserInfo(age="5.0")))
    assert (merged.error.code, merged.missing_channels) == (200, [])
    assert "vector" in channels_of(merged)


async def test_refused_requests_do_not_share_a_growing_traceback(
    start: Start,
    tiny: Bundle,
    user_tower: ServedModel,
    vectors: FakeVectors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception that is raised again keeps the frames of every earlier raise."""
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
    return {channel for of in proposed(reply) for channel, *_ in of}


def proposed(reply: RecallResponse) -> list[list[Provenance]]:
    """Of each candidate the channels that proposed it."""
    return to_provenance(reply.provenance, len(reply.score_pairs)).entries()


async def test_a_vector_store_that_is_away_is_done_without_and_comes_back(
    start: Start, tiny: Bundle, user_tower: ServedModel, vectors: FakeVectors
) -> None:
    stub = await serving(start, tiny, user_tower, vectors)
    vectors.trouble.fault = Unavailable("Milvus is unavailable")
    user = from_user(known_user(tiny))
    merged = await stub.recall(RecallRequest(user_info=user))
    assert (merged.error.code, merged.missing_channels) == (200, ["vector"])
    assert len(merged.score_pairs) == 100
    assert channels_of(merged) == {"repurchase", "similar", "popular"}
    alone = await stub.recall(RecallRequest(user_info=user, recall_type="vector"))
    assert (alone.error.code, alone.error.text) == (503, "Milvus is unavailable")

    vectors.trouble.fault = None

    async def back() -> bool:
        return not (await stub.recall(RecallRequest(user_info=user))).missing_channels

    await eventually(back)


async def test_a_vector_store_that_hangs_leaves_time_for_the_other_channels(
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


async def test_a_callers_deadline_is_kept(
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
