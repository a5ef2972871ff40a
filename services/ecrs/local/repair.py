"""`ecrs repair`: makes the embedded platform's store start again after its data were damaged."""

import asyncio
from pathlib import Path

from ecrs.local.errors import StartError
from ecrs.local.leftovers import end_leftovers
from ecrs.local.processes import Say
from ecrs.local.run_directory import locked_run_directory, reporting_errors
from ecrs.local.valkey import backup, data_dir, find_damage, repair


def repair_store(run_dir: Path, say: Say, *, afresh: bool) -> None:
    """Check the store's data, and repair damage after making a copy.

    `afresh` moves the data aside instead, whatever their state, so that the next start loads the bundle. No
    change of a product is lost: the next start applies the journal of item changes. Raises StartError if the
    data cannot be repaired, or while the platform runs.
    """
    if not run_dir.is_dir():
        raise StartError(f"there is no run directory {run_dir}")
    with locked_run_directory(run_dir) as directory, reporting_errors(directory):
        asyncio.run(end_leftovers(directory, say))
        if afresh and data_dir(directory).exists():
            say(f"moved the store's data to {backup(directory, move=True)}; `ecrs up` loads the bundle again")
            return
        damage = find_damage(directory)
        if damage is None:
            say(f"the store's data in {data_dir(directory)} are not damaged")
            return
        if not damage.is_repairable:
            raise StartError(
                f"{damage} and cannot be repaired. `ecrs repair --afresh` moves the store's data aside, and "
                "`ecrs up` then loads the bundle again, with the changes of products from their journal"
            )
        kept = backup(directory, move=False)
        repair(damage)
        if remaining := find_damage(directory):
            raise StartError(f"{remaining}, also after the repair; the data as they were: {kept}")
        say(
            f"{damage}; the rest was removed. `ecrs up` applies the changes of products among it again, from "
            f"their journal. The data as they were: {kept}"
        )
