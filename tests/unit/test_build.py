"""Tests of building a bundle from a shop's files or a prepared data set."""

import re
from pathlib import Path

import polars as pl
import pytest

from ecrs.bundle import Bundle, make_current
from ecrs_models import build as building
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from tests.tiny import tiny_data, tiny_settings


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The tiny data set as the files of a shop, with the actions as CSV."""
    source = tiny_data(tmp_path / "shop")
    pl.read_parquet(source / "actions.parquet").write_csv(source / "actions.csv")
    for name in ("actions.parquet", "dataset.json"):
        (source / name).unlink()
    return source


def test_shop_files_are_built_into_a_bundle_once(shop: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    bundles, work = tmp_path / "bundles", tmp_path / "work"
    built = building.build(str(shop), bundles, work, say=messages.append)
    assert built == Bundle.open(bundles / "current")
    assert built.manifest.data["name"] == "shop"
    for step in ("prepare: ", "train: ", "export and evaluate: "):
        assert any(line.startswith(step) for line in messages)

    messages.clear()
    assert building.build("nowhere", bundles, work, say=messages.append) == built
    current = bundles / "current"
    assert messages == [f"nothing to build: {current} is a bundle, {built.version} (--force builds anew)"]


def test_full_build_replaces_a_quick_bundle(shop: Path, tmp_path: Path) -> None:
    messages: list[str] = []

    def build(*, quick: bool) -> Bundle:
        return building.build(
            str(shop), tmp_path / "bundles", tmp_path / "work", quick=quick, say=messages.append
        )

    quick = build(quick=True)
    assert building.is_quick(quick)
    assert build(quick=True) == quick
    messages.clear()
    full = build(quick=False)
    assert messages[0] == f"building: {tmp_path / 'bundles/current'} is a quick bundle, {quick.version}"
    assert not building.is_quick(full)
    assert build(quick=True) == full


def test_damaged_bundle_is_rebuilt(shop: Path, tmp_path: Path) -> None:
    bundles, work = tmp_path / "bundles", tmp_path / "work"
    first = building.build(str(shop), bundles, work, say=lambda _: None)
    first.path.rename(bundles / "20200101_000000_00000000")  # versions are distinct by the second
    make_current(bundles, "20200101_000000_00000000")
    (bundles / "current/users.dat").write_text("")
    messages: list[str] = []
    building.build(str(shop), bundles, work, say=messages.append)
    assert "users.dat" in messages[0]
    Bundle.open(bundles / "current")


def test_preparing_again_keeps_fingerprint_of_data(shop: Path, tmp_path: Path) -> None:
    """An interrupted build prepares the data again; training resumes only if the fingerprint matches."""
    work = tmp_path / "data"
    fingerprints = {
        Dataset.load(building.prepare_source(str(shop), work, say=lambda _: None)).fingerprint()
        for _ in range(2)
    }
    assert len(fingerprints) == 1


def test_prepared_data_set_is_used_in_place(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data")
    assert building.prepare_source(str(data), tmp_path / "work", say=lambda _: None) == data
    assert not (tmp_path / "work").exists()


def test_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"users\.dat: cannot be read"):
        building.build(str(tmp_path / "nowhere"), tmp_path / "b", tmp_path / "w", say=lambda _: None)


def test_training_uses_split_of_data_set(tmp_path: Path) -> None:
    data = Dataset.load(tiny_data(tmp_path / "data"))
    assert tiny_settings(data).until == data.split.test_from < data.log.ts.max()


def test_shop_of_tutorial_is_built_into_a_bundle(tmp_path: Path) -> None:
    """The tutorial's shop has only six users, so that at some snapshots no user returned."""
    tutorial = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
    files = re.findall(r"^cat > (myshop/\S+) <<'EOF'\n(.*?)^EOF$", tutorial, re.MULTILINE | re.DOTALL)
    (tmp_path / "myshop").mkdir()
    for name, content in files:
        (tmp_path / name).write_text(content)
    messages: list[str] = []
    built = building.build(
        str(tmp_path / "myshop"), tmp_path / "bundles", tmp_path / "work", say=messages.append
    )
    assert built.count("users.dat") == 6
    assert "1 actions dropped: 0 with an unknown user, 1 with an unknown product" in "\n".join(messages)
