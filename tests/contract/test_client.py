"""`client.py` prints what the original client prints; `--full` prints all fields, `--json` prints JSON.

The client runs as a separate process, against real servers on free ports.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from ecrs.contract.as_pb2 import ASResponse
from ecrs.contract.cm_pb2 import CMRequest, CMResponse
from ecrs.contract.recall_pb2 import RecallRequest
from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.domain.aggregates import AGGREGATE_COLUMNS
from ecrs.wire.messages import to_aggregates, to_provenance
from tests.contract.transcripts import TRANSCRIPTS, assert_printed_like
from tests.platform import CM, RECALL, UM, Platform

SERVICES = Path(__file__).parents[2] / "services"
PROGRAMS = {"client.py": [str(SERVICES / "client.py")], "ecrs": ["-m", "ecrs_cli"]}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(platform: Platform) -> Run:
    """A function that runs a command of `client.py`, or of the program that `program` names."""
    targets = {f"ECRS_{name}".upper(): target for name, target in platform.targets.items()}

    def run_one(*arguments: str, program: str = "client.py") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *PROGRAMS[program], *arguments]
        environment = os.environ | targets
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    return run_one


@pytest.fixture
def printed(run: Run) -> Callable[..., str]:
    """A function that runs a command, asserts that it succeeds and returns its output."""

    def output(*arguments: str, **options: str) -> str:
        done = run(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return output


@pytest.mark.parametrize("arguments", TRANSCRIPTS)
def test_client_prints_what_the_original_prints(printed: Callable[..., str], arguments: str) -> None:
    assert_printed_like(TRANSCRIPTS[arguments], printed(*arguments.split()))


def test_comparison_fails_for_fields_that_the_original_lacks() -> None:
    for transcript in TRANSCRIPTS.values():
        text = transcript.replace("...\n", "") + "\n"
        assert_printed_like(transcript, text)
        for extra in ('bundle_version: "1"\n', "item_infos {\n}\n"):
            with pytest.raises(AssertionError):
                assert_printed_like(transcript, text[:-1] + extra + "\n")
        with pytest.raises(AssertionError):
            assert_printed_like(transcript, text.replace("\n}", "\n  out_of_stock: true\n}", 1))


@pytest.mark.parametrize(
    "arguments", [("--full", "um", "8888"), ("um", "--full", "8888"), ("um", "8888", "--full")], ids=" ".join
)
def test_full_prints_all_fields_as_text(
    printed: Callable[..., str], platform: Platform, arguments: Any
) -> None:
    expected = platform.ask(UM, UserModelRequest(user_id="8888"))
    expected.user_info.aggregates.ClearField("numbers")
    assert expected.user_info.history
    assert text_format.Parse(printed(*arguments), UserModelResponse()) == expected


def test_full_lists_unknown_items(printed: Callable[..., str], platform: Platform) -> None:
    expected = platform.ask(CM, CMRequest(item_ids=["99654", "7"]))
    assert expected.missing_ids == ["7"]
    assert text_format.Parse(printed("cm", "99654,7", "--full"), CMResponse()) == expected


def test_full_shows_provenance_and_stages(printed: Callable[..., str], platform: Platform) -> None:
    reply = text_format.Parse(printed("as", "8888", "--full", program="ecrs"), ASResponse())
    assert reply.bundle_version == platform.bundle.version
    assert all(item.provenance for item in reply.item_infos)
    assert [stage.name for stage in reply.stages] == ["user", "recall", "item", "rank"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_json_is_one_object_with_the_fields_of_the_original(
    printed: Callable[..., str], program: str
) -> None:
    reply = json.loads(printed("as", "--json", "8888", program=program))
    assert reply.keys() == {"error", "item_infos"}
    assert reply["error"] == {"code": 200}
    for item in reply["item_infos"]:
        assert item.keys() == {"sku_id", "brand", "shopid", "cate", "rank_score"}


def test_json_of_unknown_user_is_the_error(printed: Callable[..., str]) -> None:
    text = 'UM server get user_info from redis fail. (user_id: "5"\n)'
    assert json.loads(printed("um", "5", "--json")) == {"error": {"code": 500, "text": text}}


def test_full_json_has_one_aggregates_object_per_item(
    printed: Callable[..., str], platform: Platform
) -> None:
    info = platform.ask(UM, UserModelRequest(user_id="8888")).user_info
    aggregates = to_aggregates(info.aggregates)
    rows = json.loads(printed("um", "8888", "--json", "--full"))["user_info"]["aggregates"]
    assert [row["sku_id"] for row in rows] == list(aggregates.skus)
    assert [[row[name] for name in AGGREGATE_COLUMNS] for row in rows] == aggregates.numbers.tolist()
    assert isinstance(rows[0]["last_order"], int)


def test_full_json_has_provenance_of_each_candidate(printed: Callable[..., str], platform: Platform) -> None:
    info = platform.ask(UM, UserModelRequest(user_id="8888")).user_info
    expected = platform.ask(RECALL, RecallRequest(user_info=info))
    reply = json.loads(printed("--json", "--full", "recall", "8888"))
    assert "provenance" not in reply
    provenance = [
        [(one["channel"], one["position"]) for one in pair["provenance"]] for pair in reply["score_pairs"]
    ]
    table = to_provenance(expected.provenance, len(expected.score_pairs))
    assert provenance == [[(channel, position) for channel, position, _ in row] for row in table.entries()]


@pytest.mark.parametrize("program", PROGRAMS)
def test_negative_number_is_a_value_not_an_option(printed: Callable[..., str], program: str) -> None:
    """`-1` stands for an unknown profile value."""
    unknown = ["-1", "--json", "-1.0", "-1", "-1", "-1", "-1"]
    assert json.loads(printed("as", *unknown, program=program))["error"] == {"code": 200}
    assert "code: 500" in printed("um", "-1", program=program)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "arguments",
    [("as", "1", "2"), ("um",), ("cm", "1", "2"), ("recall",), ("rank", "1"), ("um", "1", "--ful")],
    ids=" ".join,
)
def test_usage_error_prints_the_usage(run: Run, program: str, arguments: Any) -> None:
    done = run(*arguments, program=program)
    assert (done.returncode, done.stdout) == (2, "")
    assert "client.py as 8888" in done.stderr
