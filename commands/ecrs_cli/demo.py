"""`make demo`: from a year of purchases to recommendations, step by step, timed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecrs.bundle import Bundle
from ecrs.client import original
from ecrs.settings import TargetSettings
from ecrs_cli.embedded import embedded_platform
from ecrs_models.build import COMPLETE_JOURNEY, build

ARTIFACTS = Path("artifacts")
SHOWN = 5
"""Products of an answer that are printed."""

Say = Callable[[str], None]


def run(say: Say) -> None:
    """Make a bundle where there is none, start the platform, ask it the four kinds of question, stop it."""
    started = time.monotonic()
    say("1. A bundle: prepare the Complete Journey's purchases, train both models, export.")
    bundle = build(COMPLETE_JOURNEY, ARTIFACTS / "bundles", ARTIFACTS, say=say)
    say("\n2. The platform: a store and five services on 127.0.0.1.")
    asyncio.run(_ask(bundle, say))
    say(f"\nAll of it took {time.monotonic() - started:.0f} s. To keep it running: .venv/bin/ecrs up")


async def _ask(bundle: Bundle, say: Say) -> None:
    begun = time.monotonic()
    async with embedded_platform(bundle, ARTIFACTS / "run", say):
        say(f"up in {time.monotonic() - begun:.1f} s\n\n3. Four kinds of question.")
        user_id, *profile = next(bundle.lines("users.dat")).split(":")
        sku = next(bundle.lines("products.dat")).split(":")[0]
        questions = {
            "An old user, by id: what should we show?": ["as", user_id],
            "A new user, by profile: age sex city_level province city county.": ["as", *profile],
            "A user nobody knows: an error that says so.": ["as", "no-such-user"],
            "Product records: one known, one not.": ["cm", f"{sku},no-such-product"],
        }
        for words, arguments in questions.items():
            say(f"\n{words}\n$ .venv/bin/ecrs {' '.join(arguments)}")
            reply = await asyncio.to_thread(original.run, arguments, TargetSettings())
            say(_shortened(reply))


def _shortened(reply: Any) -> str:
    """The reply's text with its first products only."""
    left_out = len(reply.item_infos) - SHOWN
    del reply.item_infos[SHOWN:]
    return f"{reply}" + (f"… and {left_out} more products\n" if left_out > 0 else "")
