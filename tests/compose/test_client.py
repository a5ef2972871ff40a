"""The original's commands, run in the client container."""

import json
import re
from typing import Any

import pytest

from tests.compose.conftest import Stack
from tests.contract.transcripts import TRANSCRIPTS, assert_printed_like

UNKNOWN_ID = "1324142525"


def skus(reply: str) -> list[str]:
    return re.findall(r'sku_id: "(\d+)"', reply)


@pytest.mark.parametrize("command", ["as", "um", "recall"])
def test_the_client_prints_what_the_original_prints_of_a_user(
    stack: Stack, stored: dict[str, Any], command: str
) -> None:
    assert_printed_like(TRANSCRIPTS[f"{command} 8888"], stack.client(command, stored["user"]))


def test_the_client_prints_what_the_original_prints_of_an_item(stack: Stack, stored: dict[str, Any]) -> None:
    assert_printed_like(TRANSCRIPTS["cm 99654"], stack.client("cm", stored["products"][0]))


def test_the_client_prints_what_the_original_prints_for_a_new_user(
    stack: Stack, stored: dict[str, Any]
) -> None:
    reply = stack.client("as", *stored["profile"])
    assert_printed_like(TRANSCRIPTS["as 5.0 1.0 3.0 11.0 120.0 741.0"], reply)


@pytest.mark.parametrize("arguments", ["rank", f"cm {UNKNOWN_ID}"])
def test_the_client_prints_what_the_original_prints_for_the_same_ids(stack: Stack, arguments: str) -> None:
    assert_printed_like(TRANSCRIPTS[arguments], stack.client(*arguments.split()))


@pytest.mark.parametrize("command", ["as", "um", "recall"])
def test_an_unknown_user_gets_the_originals_error(stack: Stack, command: str) -> None:
    expected = TRANSCRIPTS["um 5"].replace(r"\"5\"", rf"\"{UNKNOWN_ID}\"")
    assert stack.client(command, UNKNOWN_ID) == expected + "\n"


def test_a_known_user_gets_100_different_items(stack: Stack, stored: dict[str, Any]) -> None:
    recommended = skus(stack.client("as", stored["user"]))
    assert len(recommended) == len(set(recommended)) == 100


def test_known_items_are_printed_and_full_lists_the_missing_ids(stack: Stack, stored: dict[str, Any]) -> None:
    values = ",".join([stored["products"][0], UNKNOWN_ID, stored["products"][1]])
    assert skus(stack.client("cm", values)) == stored["products"][:2]
    reply = json.loads(stack.client("cm", values, "--full", "--json"))
    assert reply["error"] == {"code": 200}
    assert reply["missing_ids"] == [UNKNOWN_ID]


def test_um_prints_the_stored_profile(stack: Stack, stored: dict[str, Any]) -> None:
    reply = stack.client("um", stored["user"])
    names = ("age", "sex", "city_level", "province", "city", "country")
    printed = dict(re.findall(r'^  (\w+): "(.*)"$', reply, flags=re.MULTILINE))
    assert [printed[name] for name in names] == stored["profile"]


def test_recall_prints_the_nearest_candidates_first(stack: Stack, stored: dict[str, Any]) -> None:
    reply = stack.client("recall", stored["user"])
    scores = [float(score) for score in re.findall(r"^  score: (.*)$", reply, flags=re.MULTILINE)]
    assert len(scores) == 100
    assert scores == sorted(scores)
