"""Log lines: JSON objects, whatever the event contains."""

import json

from ecrs.rpc.log import _json_bytes


def test_event_that_orjson_refuses_is_logged_all_the_same() -> None:
    event = {"event": "rpc", "ts": 10**30, "text": "\udcff", "error": ValueError("why")}
    assert json.loads(_json_bytes(event)) == {**event, "error": "why"}
