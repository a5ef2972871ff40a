"""The load of the chaos tests, where it is a process of its own."""

import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chaos import Call, Load, teller


class Slow(io.StringIO):
    """Lets other threads in between two writes, as a full pipe does."""

    def write(self, text: str) -> int:
        time.sleep(0.0005)
        return super().write(text)


def test_calls_that_end_at_once_are_a_line_each() -> None:
    file = Slow()
    tell = teller(file)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tell(Call(float(number), 0.1, True, ())), range(100)))
    assert sorted(json.loads(line)["at"] for line in file.getvalue().splitlines()) == list(range(100))


def test_a_load_that_cannot_be_understood_says_so() -> None:
    with pytest.raises(json.JSONDecodeError), Load.elsewhere([sys.executable, "-c", "print('{}{}')"]):
        pass
