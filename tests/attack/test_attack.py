"""Attacks the embedded platform beside ordinary callers, who must not notice.

For each attack: at least 99 % of the ordinary answers are whole and in time (degraded only if the attack
takes a part of the platform away), no process grows or ends, and full service is back within two seconds.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from ecrs.bundle import Bundle
from tests.attack.attack import Attack
from tests.attack.conftest import AttackedShop
from tests.attack.matrix import ATTACKS
from tests.attack.shop import Shop
from tests.attack.trial import RESULTS, Trial, print_trials

pytestmark = pytest.mark.attack

QUIET_S = 8.0


async def quiet(shop: Shop) -> None:
    await asyncio.sleep(QUIET_S)


QUIET = Attack("quiet", quiet)


@pytest.fixture(scope="module")
def trials() -> Iterator[list[Trial]]:
    """The results of all attacks, written to a file at the end."""
    trials: list[Trial] = []
    yield trials
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = [asdict(trial) for trial in trials]
    (RESULTS / "attack.json").write_text(json.dumps(rows, indent=1) + "\n")
    print_trials(trials)


@pytest.fixture(scope="module")
def shop(
    bundle: Bundle, trials: list[Trial], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedShop]:
    """A shop that answers in time as long as nobody attacks it, or the machine could not tell."""
    with AttackedShop.closing(bundle, tmp_path_factory.mktemp("attack")) as shop:
        trials.append(control := shop.withstand(QUIET))
        if control.problems:
            reasons = "; ".join(control.problems)
            pytest.exit(f"the machine is too slow: without any attack, {reasons}", returncode=1)
        yield shop


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_ordinary_callers_do_not_notice(shop: AttackedShop, trials: list[Trial], attack: Attack) -> None:
    if attack.needs_disk and not shop.has_log_disk:
        pytest.skip("no small disk without root")
    trials.append(trial := shop.withstand(attack))
    assert not trial.problems
