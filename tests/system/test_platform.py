"""The whole embedded platform, used through the client's commands and gRPC."""

import json
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import text_format

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import CMResponse
from ecrs.contract.recall_pb2 import RecallResponse
from ecrs.contract.um_pb2 import UserModelResponse
from ecrs.contract.user_info_pb2 import Interaction, UserInfo
from ecrs.ports import METRICS_OFFSET, PORTS
from tests.contract.transcripts import TRANSCRIPTS, assert_printed_like
from tests.eventually import eventually
from tests.system.conftest import Up, ecrs

pytestmark = pytest.mark.usefixtures("up")

PROFILE = ("5.0", "1.0", "3.0", "11.0", "120.0", "741.0")


@pytest.fixture
def gateway() -> Iterator[ASServiceStub]:
    with grpc.insecure_channel("127.0.0.1:8930") as channel:
        yield ASServiceStub(channel)


def full(*arguments: str, into):
    """Run a command with --full and parse its output into the message `into`, with all fields."""
    done = ecrs(*arguments, "--full")
    assert done.returncode == 0, done.stderr
    return text_format.Parse(done.stdout, into)


@pytest.mark.parametrize("arguments", TRANSCRIPTS)
def test_ecrs_prints_what_the_original_prints(arguments: str) -> None:
    assert_printed_like(TRANSCRIPTS[arguments], ecrs(*arguments.split()).stdout)


def test_a_known_user_gets_recommendations_by_id(tiny: Bundle) -> None:
    reply = full("as", "8888", into=ASResponse())
    assert reply.error.code == 200
    assert reply.bundle_version == tiny.version
    skus = [info.sku_id for info in reply.item_infos]
    assert len(skus) == len(set(skus)) == 100
    scores = [info.rank_score for info in reply.item_infos]
    assert scores == sorted(scores, reverse=True)
    assert all(info.brand and info.shopid and info.cate and info.provenance for info in reply.item_infos)
    assert [(stage.name, stage.outcome) for stage in reply.stages] == [
        ("user", "ok"), ("recall", "ok"), ("item", "ok"), ("rank", "ok"),
    ]  # fmt: skip


def test_a_new_user_gets_recommendations_by_profile() -> None:
    reply = full("as", *PROFILE, into=ASResponse())
    assert reply.error.code == 200
    assert len(reply.item_infos) == 100
    assert reply.stages[0].outcome == "skipped"


@pytest.mark.parametrize("user_id", ["", "0", "-1"])
def test_all_ids_of_a_new_user_give_the_same_answer(gateway: ASServiceStub, user_id: str) -> None:
    profile = UserInfo(age="5.0", sex="1.0")
    reply = gateway.as_call(ASRequest(user_id=user_id, user_info=profile), timeout=5)
    without_id = gateway.as_call(ASRequest(user_info=profile), timeout=5)
    assert list(reply.item_infos) == list(without_id.item_infos)


def test_an_unknown_user_gets_the_error_of_um() -> None:
    assert ecrs("as", "5").stdout == TRANSCRIPTS["um 5"] + "\n"


def test_an_unknown_user_with_a_profile_gets_recommendations(gateway: ASServiceStub) -> None:
    reply = gateway.as_call(ASRequest(user_id="5", user_info=UserInfo(age="5.0")), timeout=5)
    assert reply.error.code == 200
    assert reply.stages[0].outcome == "not_found"


def test_a_request_without_a_user_is_a_bad_request(gateway: ASServiceStub) -> None:
    reply = gateway.as_call(ASRequest(user_id="0"), timeout=5)
    assert reply.error.code == 400
    assert reply.error.text == "the request names no user: set user_id or user_info"


def test_a_session_changes_the_answer_for_an_anonymous_user(gateway: ASServiceStub) -> None:
    clicks = [Interaction(sku_id="99654", ts=1_700_000_000, type="VIEW")] * 3
    without_clicks = gateway.as_call(ASRequest(user_info=UserInfo(age="5.0")), timeout=5)
    with_clicks = gateway.as_call(ASRequest(user_info=UserInfo(age="5.0", history=clicks)), timeout=5)
    assert [i.sku_id for i in without_clicks.item_infos] != [i.sku_id for i in with_clicks.item_infos]


def test_request_num_limits_the_answer_to_the_best_items(gateway: ASServiceStub) -> None:
    everything = gateway.as_call(ASRequest(user_id="8888"), timeout=5)
    few = gateway.as_call(ASRequest(user_id="8888", request_num=5), timeout=5)
    assert list(few.item_infos) == list(everything.item_infos)[:5]


async def test_the_callers_log_id_is_in_the_reply_and_in_every_services_log(
    gateway: ASServiceStub, up: Up
) -> None:
    reply = gateway.as_call(ASRequest(user_id="8888", log_id="follow-me"), timeout=5)
    assert reply.log_id == "follow-me"

    def own_lines(name: str) -> list[tuple[str, int]]:
        lines = map(json.loads, (up.run_dir / "log" / f"{name}.log").read_text().splitlines())
        own = [line for line in lines if line.get("log_id") == "follow-me" and line["event"] == "rpc"]
        return [(line["service"], line["error_code"]) for line in own]

    async def all_have_logged() -> bool:  # a line is written soon after the call
        return all(map(own_lines, PORTS))

    await eventually(all_have_logged)
    assert {name: own_lines(name) for name in PORTS} == {name: [(name, 200)] for name in PORTS}


def test_um_prints_profile_and_history() -> None:
    reply = full("um", "8888", into=UserModelResponse())
    assert (reply.user_info.user_id, reply.user_info.age) == ("8888", "1.0")
    assert 0 < len(reply.user_info.history) <= 50


def test_cm_prints_known_items_and_lists_missing_ids() -> None:
    reply = full("cm", "99654,12048,7", into=CMResponse())
    assert [info.sku_id for info in reply.item_infos] == ["99654", "12048"]
    assert list(reply.missing_ids) == ["7"]


def test_recall_prints_candidates_nearest_first() -> None:
    reply = full("recall", "8888", into=RecallResponse())
    scores = [pair.score for pair in reply.score_pairs]
    assert len(scores) == 100
    assert scores == sorted(scores)


def test_a_usage_error_prints_the_usage() -> None:
    done = ecrs("as", "1", "2")
    assert done.returncode == 2
    assert "client.py as 8888" in done.stderr


def test_health_reports_every_service_as_serving() -> None:
    done = ecrs("health")
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()] == [[name, "SERVING"] for name in PORTS]


@pytest.mark.parametrize("name", PORTS)
def test_metrics_include_calls_and_the_bundle_version(name: str, tiny: Bundle) -> None:
    url = f"http://127.0.0.1:{PORTS[name] + METRICS_OFFSET}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        text = reply.read().decode()
    assert 'ecrs_rpc_total{error_code="200",grpc_code="OK",method="' in text
    if name != "gateway":
        assert f'ecrs_bundle_info{{service="{name}",version="{tiny.version}"}} 1.0' in text
