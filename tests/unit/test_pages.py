"""README, CONTRIBUTING, architecture and glossary agree with the code and with each other."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from ecrs_models.build import FULL_QUALITY, FULL_TIME

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *("docs/explanation/architecture.md", "docs/explanation/security.md", "docs/reference/glossary.md"),
)


def commands(page: str) -> list[str]:
    """The lines of a page's indented code blocks, without comments."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = re.findall(r"^    (.+)$", text, re.MULTILINE)
    return [line.partition(" # ")[0].strip() for line in lines]


def code_blocks(page: str) -> list[str]:
    """A page's Python blocks."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def glossary() -> list[tuple[str, str]]:
    """Word and module column of each row."""
    page = (ROOT / "docs/reference/glossary.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+ \| (`.+`) \|$", page, re.MULTILINE)
    assert len(rows) > 50
    return rows


def test_readme_in_chinese_has_the_same_commands_code_and_figures() -> None:
    assert len(commands("README.md")) > 10
    assert commands("README.zh.md") == commands("README.md")
    assert code_blocks("README.zh.md") == code_blocks("README.md")
    figures = [re.findall(r"[−+]?\.\d+", (ROOT / page).read_text()) for page in ("README.md", "README.zh.md")]
    assert sorted(figures[0]) == sorted(figures[1])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_exist(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_glossary_is_in_alphabetical_order() -> None:
    words = [re.sub(r"[^a-z0-9]", "", word.lower()) for word, _ in glossary()]
    assert words == sorted(set(words))


def test_glossary_names_modules_that_exist() -> None:
    modules = {module for _, column in glossary() for module in re.findall(r"`([\w.]+)`", column)}
    assert [module for module in modules if find_spec(module) is None] == []


@pytest.mark.parametrize("package", ["services/ecrs", "models/ecrs_models"])
def test_architecture_names_every_package(package: str) -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    packages = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
    assert len(packages) > 5
    assert [name for name in packages if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "docs/reference/quality.md"])
def test_pages_have_the_quality_that_the_demo_prints(page: str) -> None:
    cells = [f"{recall:.4f} / {ndcg:.4f}".replace("0.", ".") for recall, ndcg in FULL_QUALITY.values()]
    rows = [row.replace("*", "") for row in (ROOT / page).read_text().splitlines() if row.startswith("|")]
    assert any(all(cell in row for cell in cells) for row in rows)


def test_quality_page_has_the_relative_build_time_that_the_demo_prints() -> None:
    assert f"takes {FULL_TIME:.1f} times as long" in (ROOT / "docs/reference/quality.md").read_text()
