"""Starting a command loads what the command uses, and nothing else."""

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from worker.cli.extras import EXTRAS
from worker.cli.main import COMMANDS, app
from worker.samples.sample import SAMPLE_IMAGES

CLIENTS = {"boto3", "fastapi", "httpx", "kafka", "ray"}
UNUSED = {
    "cel.cli",
    "ftfy",
    "jinja2",
    "openvino.tools.ovc",
    "opentelemetry.sdk.trace",
    "prompt_toolkit",
    "tokenizers",
    "torch",
}
USED = {"PIL", "cel", "fakeredis", "numpy", "openvino", "pydantic", "redis", "structlog", "yaml"}
ROOT = Path(__file__).parents[3]
SAMPLE = SAMPLE_IMAGES / "AttnGAN_normal_021.jpg"


def loaded(code: str, names: set[str], folder: Path) -> set[str]:
    """Which of the modules a fresh process has loaded after it ran the code."""
    tell = f"\nimport sys; print('loaded:', *[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + tell], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def running(*arguments: object) -> str:
    return f"from worker.cli.main import app\napp({[str(a) for a in arguments]!r}, standalone_mode=False)"


def test_the_help_loads_no_library_of_the_worker(tmp_path: Path) -> None:
    assert loaded(running("--help"), CLIENTS | UNUSED | USED, tmp_path) == set()


def test_scoring_a_file_loads_no_client_of_a_server_no_tokenizer_and_no_template_engine(tmp_path: Path) -> None:
    assert loaded(running("score", SAMPLE), CLIENTS | UNUSED | {"fakeredis", "redis"}, tmp_path) == set()


def test_the_embedded_worker_loads_no_client_of_a_server(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from worker.settings import Settings
from worker.wiring import build_embedded_worker
build_embedded_worker(Settings(), Path({str(tmp_path / "data")!r}))
"""
    assert loaded(code, CLIENTS | UNUSED, tmp_path) == set()


def test_every_command_explains_itself() -> None:
    overview = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    for name in COMMANDS:
        assert name in overview
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    command = typer.main.get_command(import_module(f"worker.cli.{name}").app)
    assert COMMANDS[name] == " ".join((command.help or "").split("\n\n")[0].split())


def test_a_mistyped_command_is_answered_with_the_nearest_one() -> None:
    result = CliRunner().invoke(app, ["scroe"])
    assert (result.exit_code, "Did you mean 'score'?" in result.stderr) == (2, True)


def test_the_version_is_told() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"sluice {version('sluice')}\n")


def test_every_missing_package_is_told_with_an_extra_that_installs_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = packages_distributions()
    for module, name in EXTRAS.items():
        owners = {canonicalize_name(owner) for owner in distributions.get(module, ())}
        assert not owners or owners & _brought(name, extras), f"{module} is not installed by sluice[{name}]"


def test_a_command_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules.update({'fakeredis': None, 'jinja2': None})\n" + running("up", "--embedded")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "this command needs fakeredis, which is not installed: pip install 'sluice[embedded]'" in done.stderr
    code = "import sys; sys.modules.update({'jinja2': None})\n" + running("score", SAMPLE, "--report", "r.html")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "pip install 'sluice[report]'" in done.stderr
    assert not (tmp_path / "r.html").exists()


def _brought(extra: str, extras: dict[str, list[str]]) -> set[str]:
    """The distributions that an extra names, those of the extras of Sluice among them."""
    found = set()
    for requirement in map(Requirement, extras[extra]):
        found.add(canonicalize_name(requirement.name))
        if requirement.name == "sluice":
            found |= {name for other in requirement.extras for name in _brought(other, extras)}
        elif requirement.name == "fastapi":
            found.add("starlette")  # fastapi stands on it
    return found


def test_every_command_explains_itself_with_what_serving_has() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HELP_OF_SERVING, str(ROOT / "pyproject.toml")], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


_HELP_OF_SERVING = """
import importlib.metadata as metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

serving = set()
# Not the installed metadata, which may be older than pyproject.toml.
OURS = tomllib.loads(Path(sys.argv[1]).read_text())["project"]["dependencies"]

def add(name, extra=""):
    if (name, extra) in serving:
        return
    serving.add((name, extra))
    try:
        needed = map(Requirement, OURS if name == "sluice" else metadata.requires(name) or ())
    except metadata.PackageNotFoundError:
        return  # for other systems
    for one in needed:
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            for wanted in ("", *one.extras):
                add(canonicalize_name(one.name), wanted)

add("sluice")
names = {name for name, _ in serving}
absent = {
    module
    for module, owners in metadata.packages_distributions().items()
    if names.isdisjoint(map(canonicalize_name, owners))
} - set(sys.stdlib_module_names)
assert {"torch", "onnx", "ray", "nncf", "fastapi", "jinja2", "fakeredis"} <= absent

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for module in [name for name in sys.modules if name.partition(".")[0] in absent - {"packaging"}]:
    del sys.modules[module]
sys.meta_path.insert(0, Absent())

from worker.cli.main import COMMANDS, app

for arguments in ([], *([name] for name in COMMANDS)):
    result = CliRunner().invoke(app, [*arguments, "--help"], catch_exceptions=False)
    assert result.exit_code == 0, (arguments, result.output)
"""
"""Has of all packages those that `pip install sluice` brings, without extras."""
