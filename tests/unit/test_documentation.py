"""The documentation says what is there: links lead somewhere, and what is written from code is fresh."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from worker.cli.main import COMMANDS
from worker.settings.reference import FILE, reference

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "trt_build" / "README.md", *sorted((ROOT / "ops" / "runbooks").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
CODE = re.compile(r"`((?:worker|schemas|trt_build|ops|tests|deploy)/[\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        target, _, heading = (found[1] or found[2]).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{found[0]} of {page.name} leads nowhere"
        if heading and file.suffix == ".md":
            assert heading in _headings(file), f"{found[0]} of {page.name}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_the_code_that_a_page_names_exists(page: Path) -> None:
    for found in CODE.finditer(page.read_text(encoding="utf-8")):
        assert (ROOT / found[1]).exists(), f"{page.name} names {found[1]}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_files_by_their_full_path(page: Path) -> None:
    assert re.findall(r"`[a-z][a-z0-9_]*\.py`", page.read_text(encoding="utf-8")) == []


def test_each_function_that_the_architecture_page_names_is_in_a_file_of_its_row() -> None:
    rows = _section((ROOT / "docs" / "architecture.md").read_text(), "## Where to look").splitlines()
    found = [(row, name) for row in rows for name in re.findall(r"`([A-Z]\w+(?:\.\w+)?|[a-z]+_\w+)`", row)]
    assert len(found) > 5, "the rows name functions"
    assert [name for row, name in found if name not in _definitions(CODE.findall(row))] == []


@pytest.mark.parametrize(
    ("question", "path"),
    [
        ("an event is retried", "worker/judging/fetch_retries.py"),
        ("a policy is loaded", "worker/policy/loading.py"),
        ("an engine is promoted", "worker/scoring/promotion.py"),
    ],
)
def test_a_newcomer_finds_the_code_within_two_links_of_the_index(question: str, path: str) -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    [row] = [row for row in index.splitlines() if question in row]
    [(page, heading)] = re.findall(r"\]\(([\w.]+)#([\w-]+)\)", row)
    section = _section((ROOT / "docs" / page).read_text(), "## " + heading.replace("-", " ").capitalize())
    assert f"`{path}`" in section


def test_the_configuration_reference_is_what_the_settings_say() -> None:
    assert FILE.read_text(encoding="utf-8") == reference(), "run: python -m worker.settings.reference"


def test_every_setting_has_a_description() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row for row in rows if not row.rstrip(" |").count("|") >= 4] == []


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index] == ["README.md"]


def test_the_layers_of_the_architecture_page_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(layer.replace(" : ", " | ") for layer in layers) in page


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if not re.search(rf"`{name}\b|sluice {name}\b", readme)] == []


def _section(page: str, heading: str) -> str:
    return page.partition(f"{heading}\n")[2].partition("\n## ")[0]


def _definitions(paths: list[str]) -> set[str]:
    """The functions and classes of the files, and the methods as `Class.method`."""
    names = set()
    for path in paths:
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def _headings(file: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    texts = re.findall(r"^#+ +(.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in texts}
