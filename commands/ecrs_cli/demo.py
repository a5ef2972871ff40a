"""`make demo`: from a year of purchases to recommendations, step by step, timed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecrs.bundle import CURRENT, Bundle
from ecrs.client.original import ask
from ecrs.client.replies import as_text
from ecrs.settings import TargetSettings
from ecrs_cli.embedded import embedded_platform
from ecrs_models.build import FULL_QUALITY, FULL_TIME, build, is_quick
from ecrs_models.prepare import COMPLETE_JOURNEY

ARTIFACTS = Path("artifacts")
SHOWN = 5
"""Products of a reply that are printed."""

Say = Callable[[str], None]


def run(say: Say) -> None:
    """Build a quick bundle if there is none, start the platform, send it four kinds of request, stop it."""
    started = time.monotonic()
    bundles = ARTIFACTS / "bundles"
    say("1. A bundle: prepare the Complete Journey's purchases, train both models on a part, export.")
    is_built = not (bundles / CURRENT).exists()
    bundle = build(COMPLETE_JOURNEY, bundles, ARTIFACTS, quick=True, say=say)
    if is_quick(bundle):
        say(_full_bundle(time.monotonic() - started if is_built else None))
    say("\n2. The platform: a store and five services on 127.0.0.1.")
    asyncio.run(_ask(bundle, say))
    say(f"\nAll of it took {time.monotonic() - started:.0f} s. To keep it running: .venv/bin/ecrs up")


def _full_bundle(quick_s: float | None) -> str:
    """Quality of a full bundle, how to build it, and its build time given that of the quick one."""
    quality = "".join(
        f"  task {task}: recall@20 / NDCG@20 {recall:.4f} / {ndcg:.4f}\n"
        for task, (recall, ndcg) in FULL_QUALITY.items()
    )
    here = f", about {quick_s * FULL_TIME / 60:.0f} minutes on this machine" if quick_s else ""
    return (
        f"This is a quick bundle. A full one, by `.venv/bin/ecrs build`, takes {FULL_TIME:.1f} times as long"
        f"{here}, and reaches\n{quality}docs/reference/quality.md compares the two."
    )


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
