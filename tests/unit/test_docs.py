"""The reference pages cover every command, setting, metric and error code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import REGISTRY
from typer.core import TyperGroup, TyperOption

import ecrs.cm.app
import ecrs.gateway.app
import ecrs.rank.app
import ecrs.recall.app
import ecrs.um.app  # noqa: F401 - these imports define all settings classes
import ecrs_seed.milvus_users  # noqa: F401 - and this one those of a seed
from ecrs.rpc.errors import Fault
from ecrs.rpc.interceptors import SUCCESS
from ecrs.rpc.settings import EnvironmentSettings
from ecrs_cli.main import app
from tests.metrics import Declared, declared

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def verbs(command: Any, name: str = "ecrs") -> Iterator[tuple[str, Any]]:
    """Yield the full name and the command object of each runnable command."""
    if isinstance(command, TyperGroup):
        for own, child in command.commands.items():
            yield from verbs(child, f"{name} {own}")
    else:
        yield name, command


VERBS = dict(verbs(typer.main.get_command(app)))


def code_spans(page: str) -> set[str]:
    """Return the texts in code spans of a reference page."""
    return set(re.findall(r"`([^`]+)`", (REFERENCE / page).read_text()))


@pytest.mark.parametrize("verb", VERBS)
def test_cli_page_has_every_verb_with_its_options(verb: str) -> None:
    heading = rf"^### {verb}(?![\w-]| [a-z])(.*?)(?=^#|\Z)"
    section = re.search(heading, (REFERENCE / "cli.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section, f"no heading `### {verb}`"
    for parameter in VERBS[verb].params:
        if isinstance(parameter, TyperOption):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{option}`" in section[1]
        else:
            assert (parameter.metavar or str(parameter.name).upper()) in section[1]


def test_cli_page_has_no_unknown_verb() -> None:
    headings = re.findall(r"^### (ecrs(?: [a-z-]+)+)", (REFERENCE / "cli.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(VERBS)


def test_original_page_names_existing_commands_and_paths() -> None:
    page = code_spans("original.md")
    commands = {word for word in page if word.startswith("ecrs ")}
    paths = {word for word in page if word.startswith(("services/", "seed/", "tests/"))}
    assert len(commands) > 5
    assert len(paths) > 5
    assert [word for word in commands if not any(f"{word} ".startswith(f"{verb} ") for verb in VERBS)] == []
    assert [word for word in paths if not (REFERENCE.parents[1] / word).exists()] == []


def subclasses(kind: type[EnvironmentSettings]) -> Iterator[type[EnvironmentSettings]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_settings_page_has_every_setting() -> None:
    settings = {
        f"ECRS_{name}".upper() for kind in subclasses(EnvironmentSettings) for name in kind.model_fields
    }
    assert len(settings) > 20
    assert settings == {word for word in code_spans("settings.md") if re.fullmatch(r"ECRS_[A-Z_]+", word)}


def test_metrics_page_has_every_metric_with_type_and_labels() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    rows = re.findall(r"^\| `(ecrs_\w+)` \| (\w+) \|(.*)\|$", page, re.MULTILINE)
    documented = {
        name: Declared(type_, tuple(re.findall(r"`(\w+)`", labels))) for name, type_, labels in rows
    }
    assert len(documented) > 3
    assert documented == declared()


def test_wire_page_has_every_error_code() -> None:
    table = set(re.findall(r"^\| (\d+) \|", (REFERENCE / "wire.md").read_text(), re.MULTILINE))
    assert table == {str(SUCCESS), *(str(fault.code) for fault in Fault.__subclasses__())}


def test_all_registered_metrics_are_declared() -> None:
    registered = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("ecrs_")}
    assert registered == {name.removesuffix("_total") for name in declared()}
