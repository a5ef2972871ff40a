"""On a disk that is really full, existing files stay intact, and one line of error text gives the reason."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ecrs.bundle import CURRENT, Bundle, BundleError
from ecrs.domain.entities import Item
from ecrs.rpc.errors import Unavailable
from ecrs.storage.item_journal import START
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs_models.data.dataset import ACTIONS, PRODUCTS, USERS, Dataset
from ecrs_models.errors import DataError
from ecrs_models.export import bundle_writer
from ecrs_models.training import pipeline
from tests.small_disk import Disk, fill
from tests.tiny import tiny_settings


@pytest.fixture(scope="module")
def trained(tiny: Bundle) -> tuple[pipeline.TrainedModels, Dataset]:
    """The trained models and the data set that the tiny bundle was exported from."""
    work = tiny.path.parents[1]
    return pipeline.load(work / "train"), Dataset.load(work / "data")


def bundle_bytes(bundle: Bundle) -> int:
    return sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.9, 0.99])
def test_export_to_full_disk_keeps_current_bundle(
    tiny: Bundle, trained: tuple[pipeline.TrainedModels, Dataset], disk: Disk, share: float
) -> None:
    bundles = disk(bundle_bytes(tiny) * 3 // 1024)
    old = bundle_writer.export(*trained, bundles, measured=False)
    size = bundle_bytes(Bundle.open(bundles / old))
    before = sorted(path.name for path in bundles.iterdir())
    fill(bundles, leave=int(size * share))
    with pytest.raises(BundleError, match=r"cannot be written: .*, [0-9,]+ bytes are free"):
        bundle_writer.export(*trained, bundles, measured=False)
    assert sorted(path.name for path in bundles.iterdir()) == sorted([*before, "filler"])
    assert Bundle.open(bundles / CURRENT).version == old


@pytest.fixture(scope="module")
def shop(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set as a shop's own files."""
    shop, data = tmp_path_factory.mktemp("shop"), tiny.path.parents[1] / "data"
    for name in (USERS, PRODUCTS):
        shutil.copyfile(data / name, shop / name)
    pl.read_parquet(data / ACTIONS).write_csv(shop / "actions.csv")
    return shop


def ecrs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run an `ecrs` command until it exits."""
    command = [Path(sys.executable).with_name("ecrs"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_reports_full_disk(done: subprocess.CompletedProcess[str], directory: Path) -> None:
    """Assert exit code 1 and, after any progress lines, one line on stderr that names the directory."""
    why = r"cannot be written: .+, [0-9,]+ bytes are free"
    assert done.returncode == 1, done.stdout
    assert re.fullmatch(rf"(  \w+: .+, \d+ s\n)*ecrs: {re.escape(str(directory))}: {why}\n", done.stderr), (
        done.stderr
    )


@pytest.mark.parametrize("kib", [8, 500, 2000])
def test_prepare_complete_journey_reports_full_disk(disk: Disk, kib: int) -> None:
    out = disk(kib) / "data"
    assert_reports_full_disk(ecrs("prepare", "complete-journey", "--out", out), out)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("kib", [4, 12, 40])
def test_prepare_files_reports_full_disk(disk: Disk, shop: Path, kib: int) -> None:
    out = disk(kib) / "data"
    assert_reports_full_disk(ecrs("prepare", "files", shop, "--out", out), out)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("leave_kib", [0, 8, 200, 400, 1000])
def test_train_reports_full_disk_and_resumes_once_there_is_space(
    tiny: Bundle, disk: Disk, leave_kib: int
) -> None:
    out = disk(4096) / "train"
    filler = fill(out.parent, leave=leave_kib * 1024)
    command = ["train", "--data", tiny.path.parents[1] / "data", "--out", out]
    command += ["--tower-epochs", "1", "--ranker-epochs", "1"]
    assert_reports_full_disk(ecrs(*command), out)
    filler.unlink()
    again = ecrs(*command)
    assert again.returncode == 0, again.stderr


def test_checkpoint_reports_full_disk(tiny: Bundle, disk: Disk) -> None:
    out = disk(4096) / "train"
    fill(out.parent, leave=400 * 1024)
    data = Dataset.load(tiny.path.parents[1] / "data")
    with pytest.raises(DataError, match=rf"{out}: cannot be written: .*, [0-9,]+ bytes are free"):
        pipeline.train(data, out, tiny_settings(data), checkpoint_s=0.0)
    assert not (out / "early_towers.npz").exists()


@pytest.mark.parametrize(("step", "kib"), [("data", 40), ("train", 400), ("bundles", 5000)])
def test_build_reports_full_disk_of_each_step(disk: Disk, shop: Path, step: str, kib: int) -> None:
    work = disk(kib)
    done = ecrs("build", "--data", shop, "--work", work, "--bundles", work / "bundles")
    directory = work / step if step == "bundles" else work / step / shop.name
    assert_reports_full_disk(done, directory)


def test_export_reports_full_disk(tiny: Bundle, disk: Disk) -> None:
    bundles, work = disk(bundle_bytes(tiny) // 2048), tiny.path.parents[1]
    command = ["export", "--bundles", bundles, "--no-measure", "--data", work / "data", work / "train"]
    assert_reports_full_disk(ecrs(*command), bundles)
    assert list(bundles.iterdir()) == []


@pytest.mark.parametrize("batch_size", [1, 200])
async def test_item_change_on_full_disk_is_refused_without_effect(disk: Disk, batch_size: int) -> None:
    directory = disk(512)
    path, written = directory / "items.sqlite", 0
    with SqliteItemJournal(path) as journal:
        await journal.remove(["first"], 5.0)
        filler = fill(directory, leave=32 * 1024)
        reason = ""
        while not reason:
            batch = [Item(f"new-{written + n}") for n in range(batch_size)]
            try:
                await journal.put(batch, 5.0)
                written += batch_size
            except Unavailable as fault:
                reason = fault.text
        assert reason == f"the item journal {path} cannot be used: database or disk is full"
        page = await journal.read(START, 10_000, 5.0)
        assert len(page.changes) == 1 + written
        filler.unlink()
        await journal.put([Item("last")], 5.0)
    with SqliteItemJournal(path) as again:
        page = await again.read(START, 10_000, 5.0)
        assert [change.sku for change in page.changes] == [
            "first", *(f"new-{n}" for n in range(written)), "last",
        ]  # fmt: skip
