"""Transcripts of the original client, and their comparison with the output of ours."""

import re
from pathlib import Path

_BLOCKS = re.findall(r"```\n(.*?)```", (Path(__file__).parent / "transcripts.md").read_text(), re.DOTALL)

TRANSCRIPTS = {
    command.partition("#")[0].removeprefix("python client.py ").strip(): output
    for command, output in zip(_BLOCKS[::2], _BLOCKS[1::2], strict=True)
}
"""The output of the original, by the client's arguments."""


def assert_printed_like(transcript: str, printed: str) -> None:
    """Assert that `printed` equals `transcript`, except for ids, scores and the number of messages at `...`.

    The text of the message is followed by the empty line that `print(message)` adds.
    """
    expected, more, _ = masked(transcript).partition("...\n")
    got = masked(printed)
    if more:
        *_, last = re.findall(r"^\w+ \{\n.*?^\}\n", expected, re.DOTALL | re.MULTILINE)
        expected += last * ((len(got) - len(expected)) // len(last))
    assert got.splitlines() == [*expected.splitlines(), ""]


def masked(text: str) -> str:
    """Return `text` with placeholders for scores and for quoted numbers: ids and profile values."""
    text = re.sub(r'(?<!\\)"-?\d+(\.\d+)?"', '"VALUE"', text)
    return re.sub(r"(score: )\d+(\.\d+)?(e[+-]\d+)?$", r"\1SCORE", text, flags=re.MULTILINE)
