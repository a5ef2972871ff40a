"""The load generator of the chaos tests, run as a separate process."""

import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chaos import Call, Load, line_writer


class SlowFile(io.StringIO):
    """Lets other threads run between two writes, as a full pipe does."""

    def write(self, text: str) -> int:
        time.sleep(0.0005)
        return super().write(text)


def test_concurrent_calls_are_written_as_separate_lines() -> None:
    file = SlowFile()
    tell = line_writer(file)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tell(Call(float(number), 0.1, True, ())), range(100)))
    assert sorted(json.loads(line)["at"] for line in file.getvalue().splitlines()) == list(range(100))


def test_malformed_output_of_load_process_raises() -> None:
    with pytest.raises(json.JSONDecodeError), Load.in_subprocess([sys.executable, "-c", "print('{}{}')"]):
        pass
