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

RECOMMENDERS = ["popularity", "history, then popularity", SEGMENT, NEIGHBOURS, FACTORS, "merged recall", OURS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(tiny_data(tmp_path_factory.mktemp("report") / "data"))


@pytest.fixture(scope="module")
def out(data: Dataset, tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ecrs evaluate` wrote."""
    out = tmp_path_factory.mktemp("out") / "evaluate"
    recs = out.parent / "recs"
    command = ["evaluate", str(tiny.path), "--data", str(data.path), "--out", str(out), "--recs", str(recs)]
    done = CliRunner().invoke(commands.app, command)
    gates = json.loads((out / "report.json").read_text())["gates"]
    assert done.exit_code == (0 if all(gate["passed"] for gate in gates) else commands.EXIT_GATE), done.output
    (out.parent / "stdout").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def content(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def lists(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["user_id"]].append(row["sku_id"])
            assert int(row["rank"]) == len(found[row["user_id"]])
    return found


@pytest.mark.parametrize("task", ["all", "new"])
def test_the_report_and_the_lists_agree(out: Path, content: dict[str, Any], data: Dataset, task: str) -> None:
    period = EvaluationPeriod.of(data, data.split.test_from, data.split.until)
    ids, skus = data.users["user_id"].to_list(), data.items["sku"].to_list()
    recommended = lists(out / f"recs-{task}.csv")
    truth = {ids[user]: {skus[item] for item in taken} for user, taken in period.truth_of(task).items()}
    assert recommended.keys() <= truth.keys()
    assert all(len(set(items)) == len(items) <= 100 for items in recommended.values())
    recalls = [len(taken & set(recommended[user][:20])) / len(taken) for user, taken in truth.items()]
    found = content["tasks"][task][OURS]["recall@20"]
    assert found["mean"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert found["low"] <= found["mean"] <= found["high"]
    assert content["users"][task] == len(truth)


def test_the_report_has_every_recommender_and_every_part(content: dict[str, Any]) -> None:
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


def test_the_report_says_what_it_is_of(content: dict[str, Any], tiny: Bundle) -> None:
    about = content["about"]
    assert about["bundle"] == tiny.version
    assert (about["data"]["name"], about["split"], about["seed"]) == ("tiny", "test period", 1)
    assert about["versions"].keys() >= {"python", "ecrs", "numpy", "paddlepaddle", "implicit"}
    assert about["baselines"][FACTORS]["factors"] > 0
    assert about["took_s"] > 0


class Reader(HTMLParser):
    """Headings, and whatever a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.outside: list[str] = []
        self.svg = 0
        self._heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._heading = tag == "h2"
        self.svg += tag == "svg"
        links = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        self.outside += [link for link in links if not link.startswith("#")]
        self.outside += [tag] * (tag in ("script", "link", "iframe"))

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings.append(data)
            self._heading = False


def test_the_page_has_all_sections_and_needs_nothing_else(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    reader = Reader()
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
    assert reader.outside == []
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_command_prints_a_table_a_task_the_gates_and_where_the_report_is(out: Path) -> None:
    stdout = (out.parent / "stdout").read_text()
    for text in ("task all", "task new", *RECOMMENDERS, "gate ", f"report: {out / 'report.html'}"):
        assert text in stdout


def test_a_gate_that_fails_is_the_exit_code(
    data: Dataset, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", str(tiny.path), "--data", str(data.path), "--out", str(tmp_path), "--quick"]
    for passed, code in ((True, 0), (False, commands.EXIT_GATE)):
        monkeypatch.setattr(Gate, "passed", passed)
        assert CliRunner().invoke(commands.app, command).exit_code == code
        assert (tmp_path / "report.html").exists()


def test_each_recommenders_lists_are_written_on_demand(out: Path, data: Dataset) -> None:
    recs = out.parent / "recs"
    assert len(list(recs.iterdir())) == 2 * len(RECOMMENDERS)
    assert (recs / "all-ecrs.csv").read_bytes() == (out / "recs-all.csv").read_bytes()
    for path in recs.iterdir():
        found = lists(path)
        assert found.keys() <= set(data.users["user_id"])
        assert {sku for items in found.values() for sku in items} <= set(data.items["sku"])


def test_quick_needs_nothing_of_the_extra(
    data: Dataset, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("implicit", "implicit.als", "matplotlib", "scipy", "threadpoolctl"):
        monkeypatch.setitem(sys.modules, name, None)
    for package, name in ((ecrs_models.evaluation, "collaborative"), (ecrs_models.report, "plots")):
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
        monkeypatch.delattr(package, name, raising=False)
    made = report(tiny, data, quick=True)
    assert NEIGHBOURS not in made.content["tasks"]["all"]
    assert "matplotlib, of the extra <code>evaluate</code>, is not installed" in page(made.content)
    with pytest.raises(DataError, match=r"need the extra `evaluate`.*--quick"):
        report(tiny, data)


def test_of_generated_data_the_page_says_how_much_of_the_possible_was_reached(
    content: dict[str, Any],
) -> None:
    row = {"mean": 0.625, "low": 0.5, "high": 0.75}
    reached = {"all": dict.fromkeys(content["tasks"]["all"][OURS], row), "new": {}}
    text = page(content | {"share_of_the_best_possible": reached})
    assert "Compared with the best possible ranking" in text
    assert "0.6250" in text
    assert "Compared with the best possible ranking" not in page(content)
