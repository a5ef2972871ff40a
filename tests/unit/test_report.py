"""The report of `ecrs evaluate`: its JSON, its page, the lists it writes, and its gates."""

import csv
import json
import re
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ecrs_models.evaluation
import ecrs_models.report
from ecrs.bundle import Bundle
from ecrs_models import commands
from ecrs_models.data.dataset import Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.evaluation.results import OURS
from ecrs_models.evaluation.slices import Gate
from ecrs_models.report.contents import FACTORS, NEIGHBOURS, SEGMENT, report
from ecrs_models.report.page import page
from tests.tiny import tiny_data

RECOMMENDERS = [
    *("popularity", "history, then popularity", SEGMENT, NEIGHBOURS, FACTORS),
    *("blended candidates", OURS),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(tiny_data(tmp_path_factory.mktemp("report") / "data"))


@pytest.fixture(scope="module")
def out(data: Dataset, tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that `ecrs evaluate` wrote."""
    out = tmp_path_factory.mktemp("out") / "evaluate"
    recs = out.parent / "recs"
    command = ["evaluate", str(tiny.path), "--data", str(data.path), "--out", str(out), "--recs", str(recs)]
    result = CliRunner().invoke(commands.app, command)
    gates = json.loads((out / "report.json").read_text())["gates"]
    assert result.exit_code == (0 if all(gate["passed"] for gate in gates) else commands.EXIT_GATE), (
        result.output
    )
    (out.parent / "stdout").write_text(result.stdout)
    return out


@pytest.fixture(scope="module")
def content(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def lists(path: Path) -> dict[str, list[str]]:
    items_by_user: dict[str, list[str]] = defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            items_by_user[row["user_id"]].append(row["sku_id"])
            assert int(row["rank"]) == len(items_by_user[row["user_id"]])
    return items_by_user


@pytest.mark.parametrize("task", ["all", "new"])
def test_report_agrees_with_written_lists(
    out: Path, content: dict[str, Any], data: Dataset, task: str
) -> None:
    period = EvaluationPeriod.of(data, data.split.test_from, data.split.until)
    ids, skus = data.users["user_id"].to_list(), data.items["sku"].to_list()
    recommended = lists(out / f"recs-{task}.csv")
    truth = {
        ids[user]: {skus[item] for item in positives} for user, positives in period.truth_of(task).items()
    }
    assert recommended.keys() <= truth.keys()
    assert all(len(set(items)) == len(items) <= 100 for items in recommended.values())
    recalls = [
        len(positives & set(recommended[user][:20])) / len(positives) for user, positives in truth.items()
    ]
    recall = content["tasks"][task][OURS]["recall@20"]
    assert recall["mean"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert recall["low"] <= recall["mean"] <= recall["high"]
    assert content["users"][task] == len(truth)


def test_report_has_every_recommender_and_section(content: dict[str, Any]) -> None:
    for task in ("all", "new"):
        assert list(content["tasks"][task]) == RECOMMENDERS
        assert list(content["better_than"][task]) == RECOMMENDERS[:-2]
        assert list(content["beyond_accuracy"][task]) == RECOMMENDERS
        funnel = {name: row["mean"] for name, row in content["funnel"][task].items()}
        assert funnel["any channel"] >= funnel["candidates"] >= funnel["list of 100"] >= funnel["list of 20"]
        assert funnel["list of 20"] == pytest.approx(content["tasks"][task][OURS]["recall@20"]["mean"])
        users = [part["users"] for part in content["slices"]["history"][task].values()]
        assert sum(users) == content["users"][task]
    assert list(content["slices"]["cold"])[:3] == ["profile alone", "session alone", "profile and session"]
    assert [gate["name"] for gate in content["gates"]] == list(content["slices"]["cold"])
    assert content["index"]["recall"] == 1
    assert content["share_of_the_best_possible"] == {"all": {}, "new": {}}
    assert sum(part["candidates"] for part in content["reliability"]) > 0


def test_report_describes_its_bundle_data_and_software(content: dict[str, Any], tiny: Bundle) -> None:
    about = content["about"]
    assert about["bundle"] == tiny.version
    assert (about["data"]["name"], about["split"], about["seed"]) == ("tiny", "test period", 1)
    assert about["versions"].keys() >= {"python", "ecrs", "numpy", "paddlepaddle", "implicit"}
    assert about["baselines"][FACTORS]["factors"] > 0
    assert about["took_s"] > 0


class PageReader(HTMLParser):
    """Collects the headings of a page, its number of plots, and everything that it would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.external: list[str] = []
        self.svg = 0
        self._heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._heading = tag == "h2"
        self.svg += tag == "svg"
        links = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        self.external += [link for link in links if not link.startswith("#")]
        self.external += [tag] * (tag in ("script", "link", "iframe"))

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings.append(data)
            self._heading = False


def test_page_has_all_sections_and_is_self_contained(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    reader = PageReader()
    reader.feed(text)
    assert reader.headings == [
        "Compared with other recommenders",
        "The funnel",
        "Users by length of history",
        "New users",
        "New products",
        "Beyond accuracy",
        "Calibration",
        "How this was measured",
    ]
    assert reader.svg == 5
    assert reader.external == []
    assert not re.search(r"@import|url\((?!#)", text)


def test_command_prints_tables_gates_and_path_of_the_report(out: Path) -> None:
    stdout = (out.parent / "stdout").read_text()
    for text in ("task all", "task new", *RECOMMENDERS, "gate ", f"report: {out / 'report.html'}"):
        assert text in stdout


def test_failed_gate_sets_the_exit_code(
    data: Dataset, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", str(tiny.path), "--data", str(data.path), "--out", str(tmp_path), "--quick"]
    for passed, code in ((True, 0), (False, commands.EXIT_GATE)):
        monkeypatch.setattr(Gate, "passed", passed)
        assert CliRunner().invoke(commands.app, command).exit_code == code
        assert (tmp_path / "report.html").exists()


def test_lists_of_each_recommender_are_written_on_demand(out: Path, data: Dataset) -> None:
    recs = out.parent / "recs"
    assert len(list(recs.iterdir())) == 2 * len(RECOMMENDERS)
    assert (recs / "all-ecrs.csv").read_bytes() == (out / "recs-all.csv").read_bytes()
    for path in recs.iterdir():
        items_by_user = lists(path)
        assert items_by_user.keys() <= set(data.users["user_id"])
        assert {sku for items in items_by_user.values() for sku in items} <= set(data.items["sku"])


def test_quick_report_needs_no_package_of_the_extra(
    data: Dataset, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("implicit", "implicit.als", "matplotlib", "scipy", "threadpoolctl"):
        monkeypatch.setitem(sys.modules, name, None)
    for package, name in ((ecrs_models.evaluation, "collaborative"), (ecrs_models.report, "plots")):
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
        monkeypatch.delattr(package, name, raising=False)
    quick_report = report(tiny, data, quick=True)
    assert NEIGHBOURS not in quick_report.content["tasks"]["all"]
    assert "matplotlib, of the extra <code>evaluate</code>, is not installed" in page(quick_report.content)
    with pytest.raises(DataError, match=r"need the extra `evaluate`.*--quick"):
        report(tiny, data)


def test_page_of_generated_data_shows_share_of_the_best_possible(
    content: dict[str, Any],
) -> None:
    row = {"mean": 0.625, "low": 0.5, "high": 0.75}
    reached = {"all": dict.fromkeys(content["tasks"]["all"][OURS], row), "new": {}}
    text = page(content | {"share_of_the_best_possible": reached})
    assert "Compared with the best possible ranking" in text
    assert "0.6250" in text
    assert "Compared with the best possible ranking" not in page(content)
