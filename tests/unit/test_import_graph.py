"""The shape of the code: no import circles, all packages in the layer contract, one name a class, short files."""

import ast
import graphlib
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("worker", "schemas", "trt_build", "ops.dev")
LONGEST_FILE = 400

# Debts. Each list may only shrink: an entry that is no longer needed fails its test, and is then removed.
CIRCLES: set[frozenset[str]] = set()
SHARED_NAMES: set[str] = set()
LONG_FILES = {
    "tests/browser/test_desk_pages.py",
    "tests/integration/test_fetch_http.py",
    "tests/integration/test_log_contract.py",
    "tests/integration/test_trt_engines.py",
    "tests/unit/apps/test_gateway_door.py",
    "tests/unit/intake/test_member.py",
    "tests/unit/review/test_review_desk_rules.py",
    "tests/unit/trt_build/test_tensorrt_runtime.py",
}

REPEATED_FILE_NAMES = {
    "base.py",
    "entry.py",
    "errors.py",
    "explain.py",
    "export.py",
    "file.py",
    "fit.py",
    "heads.py",
    "metrics.py",
    "network.py",
    "page.py",
    "reader.py",
    "report.py",
    "run.py",
    "search.py",
    "statistics.py",
    "stores.py",
    "text.py",
    "topics.py",
    "view.py",
    "votes.py",
}
ADAPTERS = ("worker/apps/", "worker/cli/", "worker/settings/")
"""Folders whose files are named for what they serve: `worker/cli/topics.py` is the command for
`worker/intake/topics.py`. The folders `http` are such ones, too."""


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def test_no_modules_import_each_other_in_a_circle(imports: grimp.ImportGraph) -> None:
    found = {circle for circle in _circles(imports) if len(circle) > 1}
    assert found == CIRCLES, "new circles, or one in CIRCLES that is gone"


def test_the_layer_contract_names_every_package(imports: grimp.ImportGraph) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = [name.strip(" ()") for layer in layers for name in layer.replace(":", "|").split("|")]
    assert sorted(named) == sorted({"schemas", "trt_build", *imports.find_children("worker")})


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for file in _tracked(".py"):
        if file.startswith(("schemas/", "trt_build/", "worker/")):
            for name in _public_classes(ROOT / file):
                places[name].add(file)
    shared = {name: sorted(files) for name, files in places.items() if len(files) > 1}
    assert shared.keys() == SHARED_NAMES, f"new shared names, or some in SHARED_NAMES that are gone: {shared}"


def test_no_file_is_longer_than_a_few_screens() -> None:
    files = [file for file in _tracked(".py", ".js", ".css", ".j2") if "/vendor/" not in file]
    long = {file for file in files if len((ROOT / file).read_text().splitlines()) > LONGEST_FILE}
    assert long == LONG_FILES, f"files of more than {LONGEST_FILE} lines, or some in LONG_FILES that are shorter now"


def test_a_file_name_says_by_itself_which_file_it_is() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for file in _tracked(".py", ".js"):
        folder, _, name = file.rpartition("/")
        is_adapter = file.startswith(ADAPTERS) or "/http" in folder
        if file.startswith(("ops/", "schemas/", "trt_build/", "worker/")) and "/vendor/" not in file and not is_adapter:
            places[name].add(file)
    repeated = {name: sorted(files) for name, files in places.items() if len(files) > 1 and not name.startswith("__")}
    assert repeated.keys() == REPEATED_FILE_NAMES, f"new repeated names, or some that are gone: {repeated}"


def _circles(imports: grimp.ImportGraph) -> Iterator[frozenset[str]]:
    """One circle after the other: each is cut where it was found, to find the next."""
    edges = {module: set(imports.find_modules_directly_imported_by(module)) for module in imports.modules}
    while True:
        try:
            graphlib.TopologicalSorter(edges).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1]  # each is imported by the next
            edges[circle[1]].remove(circle[0])
            yield frozenset(circle)
        else:
            return


def _tracked(*suffixes: str) -> list[str]:
    """The files that git has or would take, so that a build folder does not count."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [file for file in listed if file.endswith(suffixes) and (ROOT / file).is_file()]


def _public_classes(file: Path) -> Iterator[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
