import re
from pathlib import Path

import polars as pl
import pytest

from ecrs.bundle import Bundle, make_current
from ecrs_models import build as building
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.training import pipeline
from tests.tiny import tiny_data, tiny_settings


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A shop's own files: the tiny shop's, its actions as CSV."""
    source = tiny_data(tmp_path / "shop")
    pl.read_parquet(source / "actions.parquet").write_csv(source / "actions.csv")
    for name in ("actions.parquet", "dataset.json"):
        (source / name).unlink()
    return source


def test_a_shops_files_become_a_bundle_once(shop: Path, tmp_path: Path) -> None:
    said: list[str] = []
    bundles, work = tmp_path / "bundles", tmp_path / "work"
    built = building.build(str(shop), bundles, work, say=said.append)
    assert built == Bundle.open(bundles / "current")
    assert built.manifest.data["name"] == "shop"
    for step in ("prepare: ", "train: ", "export and evaluate: "):
        assert any(line.startswith(step) for line in said)

    said.clear()
    assert building.build("nowhere", bundles, work, say=said.append) == built
    current = bundles / "current"
    assert said == [f"nothing to build: {current} is a bundle, {built.version} (--force builds anew)"]


def test_a_full_build_replaces_a_quick_bundle(shop: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def build(*, quick: bool) -> Bundle:
        return building.build(
            str(shop), tmp_path / "bundles", tmp_path / "work", quick=quick, say=said.append
        )

    quick = build(quick=True)
    assert building.is_quick(quick)
    assert build(quick=True) == quick
    said.clear()
    full = build(quick=False)
    assert said[0] == f"building: {tmp_path / 'bundles/current'} is a quick bundle, {quick.version}"
    assert not building.is_quick(full)
    assert build(quick=True) == full


def test_a_damaged_bundle_is_replaced(shop: Path, tmp_path: Path) -> None:
    bundles, work = tmp_path / "bundles", tmp_path / "work"
    first = building.build(str(shop), bundles, work, say=lambda _: None)
    first.path.rename(bundles / "20200101_000000_00000000")  # versions are distinct by the second
    make_current(bundles, "20200101_000000_00000000")
    (bundles / "current/users.dat").write_text("")
    said: list[str] = []
    building.build(str(shop), bundles, work, say=said.append)
    assert "users.dat" in said[0]
    Bundle.open(bundles / "current")


def test_preparing_again_does_not_begin_the_training_again(shop: Path, tmp_path: Path) -> None:
    """An interrupted build prepares anew; the data's fingerprint must be the same for training to go on."""
    under = tmp_path / "data"
    prints = {
        pipeline.fingerprint(Dataset.load(building.prepare_source(str(shop), under, say=lambda _: None)))
        for _ in range(2)
    }
    assert len(prints) == 1


def test_a_prepared_data_set_is_used_where_it_is(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data")
    assert building.prepare_source(str(data), tmp_path / "work", say=lambda _: None) == data
    assert not (tmp_path / "work").exists()


def test_a_source_that_is_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"users\.dat: cannot be read"):
        building.build(str(tmp_path / "nowhere"), tmp_path / "b", tmp_path / "w", say=lambda _: None)


def test_training_goes_by_the_data_sets_own_split(tmp_path: Path) -> None:
    data = Dataset.load(tiny_data(tmp_path / "data"))
    assert tiny_settings(data).until == data.split.test_from < data.log.ts.max()


def test_the_tutorials_shop_becomes_a_bundle(tmp_path: Path) -> None:
    """As written there: six users, so few that at some moments nobody came back."""
    tutorial = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
    files = re.findall(r"^cat > (myshop/\S+) <<'EOF'\n(.*?)^EOF$", tutorial, re.MULTILINE | re.DOTALL)
    (tmp_path / "myshop").mkdir()
    for name, content in files:
        (tmp_path / name).write_text(content)
    said: list[str] = []
    built = building.build(str(tmp_path / "myshop"), tmp_path / "bundles", tmp_path / "work", say=said.append)
    assert built.count("users.dat") == 6
    assert "1 actions dropped: 0 with an unknown user, 1 with an unknown product" in "\n".join(said)
