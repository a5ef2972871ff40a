"""How many of the candidates the gateway can afford to rank, by how long its answers take."""

import math

from ecrs.kit.observe import QUALITY

RISE, FALL = 0.02, 0.1
"""After an answer in time, and after one that was late: quality rests where five of six are in time."""


class Quality:
    """A share of the candidates, from `least` to 1: it falls while answers take longer than `goal_s`.

    Better to choose among fewer than to refuse a call. Source: the quality factor of Twitter's home-mixer
    (the-algorithm, 2023).
    """

    def __init__(self, goal_s: float, least: float) -> None:
        self._goal_s = goal_s
        self._least = least
        self._factor = 1.0
        QUALITY.set(1.0)

    def of(self, candidates: int) -> int:
        """So many of `candidates`, at least 1."""
        return math.ceil(self._factor * candidates)

    def saw(self, took_s: float) -> None:
        """An answer took so long, and no part of it was away."""
        step = -FALL if took_s > self._goal_s else RISE
        self._factor = min(1.0, max(self._least, self._factor + step))
        QUALITY.set(self._factor)
