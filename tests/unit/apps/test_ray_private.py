"""Ray's private functions: in one file, with the parameters that are used, and only for the versions that have them."""

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
PARAMETERS = {
    "build_app": {"app", "name"},
    "call_user_app_builder_with_args_if_necessary": {"builder", "args"},
    "import_attr": {"full_path"},
    "validate_route_prefix": {"route_prefix"},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_private_function_of_ray_is_where_it_was_and_takes_what_it_took(name: str) -> None:
    from worker.apps import ray_private

    assert set(inspect.signature(getattr(ray_private, name)).parameters) >= PARAMETERS[name]


def test_no_other_file_uses_what_is_private_in_ray() -> None:
    private = re.compile(r"^\s*(?:from|import) ray(?:\.\w+)*\._\w+", re.MULTILINE)
    users = [str(file.relative_to(ROOT)) for file in ROOT.glob("worker/**/*.py") if private.search(file.read_text())]
    assert users == ["worker/apps/ray_private.py"]


def test_the_installed_ray_is_one_that_pyproject_allows_and_the_next_minor_version_is_not() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [ray] = [Requirement(text) for text in extras["gateway"] if text.startswith("ray[")]
    major, minor, _ = version("ray").split(".")
    assert ray.specifier.contains(version("ray"))
    assert not ray.specifier.contains(f"{major}.{int(minor) + 1}.0")
