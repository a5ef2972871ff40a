"""The list of attacks. An attack is a function; `attack` adds it to the list."""

from collections.abc import Awaitable, Callable, Container, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.attack.shop import Shop


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


NOTHING: Set[str] = frozenset()
ANY: Container[str] = _Everything()
"""Every fallback: for an attack that takes a part of the platform away."""


@dataclass(frozen=True)
class Attack:
    """An attack and what it may cost.

    `perform` attacks the platform for some seconds, until it is over, and raises AssertionError if the
    platform gave it what it must refuse. `degraded` are the fallbacks that ordinary answers may use
    meanwhile. `ends` names the processes that the attack ends itself: all others must survive it.
    `needs_disk`: it fills the disk of the logs, which only root can set up.
    """

    name: str
    perform: Callable[[Shop], Awaitable[None]]
    degraded: Container[str] = NOTHING
    ends: Set[str] = NOTHING
    needs_disk: bool = False


ATTACKS: list[Attack] = []
"""All attacks, in the order of their functions."""

Perform = Callable[..., Awaitable[None]]


def attack(
    *, parts: tuple[str, ...] = (), ends_part: bool = False, **allowed: Any
) -> Callable[[Perform], Perform]:
    """Add the decorated function, `async def name(shop)`, to ATTACKS; `allowed` are fields of `Attack`.

    With `parts`, the function is added once for each part, which is its second argument; with `ends_part`, it
    ends the process of that part.
    """

    def add(perform: Perform) -> Perform:
        name = perform.__name__.replace("_", " ")
        if not parts:
            ATTACKS.append(Attack(name, perform, **allowed))
        for part in parts:
            ends = frozenset({part}) if ends_part else NOTHING
            ATTACKS.append(Attack(f"{name} {part}", partial(perform, part=part), **{"ends": ends} | allowed))
        return perform

    return add
