"""`make demo`: from a year of purchases to recommendations, step by step, timed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecrs.bundle import Bundle
from ecrs.client.original import ask
from ecrs.client.replies import as_text
from ecrs.settings import TargetSettings
from ecrs_cli.embedded import embedded_platform
from ecrs_models.build import build
from ecrs_models.prepare import COMPLETE_JOURNEY

ARTIFACTS = Path("artifacts")
SHOWN = 5
"""Products of a reply that are printed."""

Say = Callable[[str], None]


def run(say: Say) -> None:
    """Make a bundle if there is none, start the platform, send it four kinds of request, stop it."""
    started = time.monotonic()
    say("1. A bundle: prepare the Complete Journey's purchases, train both models, export.")
    bundle = build(COMPLETE_JOURNEY, ARTIFACTS / "bundles", ARTIFACTS, say=say)
    say("\n2. The platform: a store and five services on 127.0.0.1.")
    asyncio.run(_ask(bundle, say))
    say(f"\nAll of it took {time.monotonic() - started:.0f} s. To keep it running: .venv/bin/ecrs up")


async def _ask(bundle: Bundle, say: Say) -> None:
    begun = time.monotonic()
    async with embedded_platform(bundle, ARTIFACTS / "run", say):
        say(f"up in {time.monotonic() - begun:.1f} s\n\n3. Four kinds of request.")
        user_id, *profile = next(bundle.lines("users.dat")).split(":")
        sku = next(bundle.lines("products.dat")).split(":")[0]
        requests = {
            "A known user, by id.": ["as", user_id],
            "A new user, by age, sex, city_level, province, city and county.": ["as", *profile],
            "An unknown user: the reply is an error.": ["as", "no-such-user"],
            "Product records. An unknown one is left out; --full names it.": ["cm", f"{sku},no-such-product"],
        }
        for words, arguments in requests.items():
            say(f"\n{words}\n$ .venv/bin/ecrs {' '.join(arguments)}")
            reply = await asyncio.to_thread(ask, arguments[0], arguments[1:], TargetSettings())
            say(_shortened(reply))


def _shortened(reply: Any) -> str:
    """The reply as the client prints it, with its first products only."""
    left_out = len(reply.item_infos) - SHOWN
    del reply.item_infos[SHOWN:]
    return as_text(reply) + (f"… and {left_out} more products\n" if left_out > 0 else "")
