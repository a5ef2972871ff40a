"""The original's commands, in the client container."""

import re
from typing import Any

from tests.compose.conftest import Stack

NOBODY = "1324142525"


def skus(reply: str) -> list[str]:
    return re.findall(r'sku_id: "(\d+)"', reply)


def test_old_user_gets_items_by_id(stack: Stack, known: dict[str, Any]) -> None:
    reply = stack.client("as", known["user"])
    assert reply.startswith("error {\n  code: 200\n}\nitem_infos {\n")
    assert len(skus(reply)) == len(set(skus(reply))) == 100


def test_new_user_gets_items_by_profile(stack: Stack, known: dict[str, Any]) -> None:
    reply = stack.client("as", *known["profile"])
    assert reply.startswith("error {\n  code: 200\n}\nitem_infos {\n")
    assert len(skus(reply)) == len(set(skus(reply))) == 100


def test_unknown_user_gets_the_originals_error(stack: Stack) -> None:
    expected = (
        "error {\n  code: 500\n"
        f'  text: "UM server get user_info from redis fail. (user_id: \\"{NOBODY}\\"\\n)"\n}}\n'
    )
    assert stack.client("um", NOBODY).startswith(expected)
    assert stack.client("as", NOBODY).startswith(expected)


def test_unknown_product_gets_the_originals_error(stack: Stack) -> None:
    expected = (
        "error {\n  code: 500\n"
        f'  text: "CM server get item_info from redis fail. (item_ids: \\"{NOBODY}\\"\\n)"\n}}\n'
    )
    assert stack.client("cm", NOBODY).startswith(expected)


def test_known_products_come_with_the_unknown_named(stack: Stack, known: dict[str, Any]) -> None:
    reply = stack.client("cm", ",".join([known["products"][0], NOBODY, known["products"][1]]))
    assert "code: 200" in reply
    assert skus(reply) == known["products"][:2]
    assert NOBODY in reply


def test_user_is_shown_as_stored(stack: Stack, known: dict[str, Any]) -> None:
    reply = stack.client("um", known["user"])
    names = ("age", "sex", "city_level", "province", "city", "country")
    shown = dict(re.findall(r'^  (\w+): "(.*)"$', reply, flags=re.MULTILINE))
    assert [shown[name] for name in names] == known["profile"]


def test_recall_lists_nearest_first(stack: Stack, known: dict[str, Any]) -> None:
    reply = stack.client("recall", known["user"])
    scores = [float(score) for score in re.findall(r"^  score: (.*)$", reply, flags=re.MULTILINE)]
    assert len(scores) == 100
    assert scores == sorted(scores)


def test_rank_scores_the_originals_example(stack: Stack) -> None:
    reply = stack.client("rank")
    assert reply.startswith('error {\n  code: 200\n}\nscore_pairs {\n  nid: "1"\n  score: ')
