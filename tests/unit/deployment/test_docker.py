"""The Dockerfile follows hadolint's rules, and its targets run as a platform may demand. No image is built here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
TARGETS = ("cpu", "desk", "ray", "gpu")
STAGE = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)


def stages() -> dict[str, tuple[str, str]]:
    """Of each stage what it is made from, and its instructions with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    found = list(STAGE.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return {match[2]: (match[1], text[match.end() : end]) for match, end in zip(found, ends, strict=True)}


def instructions(target: str) -> list[str]:
    """A target's instructions, those of the stages that it stands on first."""
    known = stages()
    lines: list[str] = []
    name = target
    while name in known:
        name, body = known[name]
        lines = [*body.strip().splitlines(), *lines]
    return [line for line in lines if line]


def last(target: str, instruction: str) -> str:
    return [line for line in instructions(target) if line.startswith(f"{instruction} ")][-1]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--failure-threshold", "style", str(DOCKERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_without_root_without_a_shell_and_with_a_health_check(target: str) -> None:
    assert last(target, "USER") == "USER 1000:1000"
    assert last(target, "STOPSIGNAL") == "STOPSIGNAL SIGTERM"
    assert "HEALTHCHECK" in " ".join(instructions(target))
    assert json.loads(last(target, "CMD").removeprefix("CMD "))
    assert "org.opencontainers.image.licenses" in last(target, "LABEL")
    after_user = instructions(target)[instructions(target).index("USER 1000:1000") :]
    assert not [line for line in after_user if line.startswith("RUN")]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_gets_only_what_was_installed_from_the_constraints(target: str) -> None:
    copied = [line.split()[1].removeprefix("--from=") for line in instructions(target) if line.startswith("COPY")]
    packages = f"{target}-packages"
    assert packages in copied
    installed = stages()[packages][1]
    assert "-c constraints.txt -r pyproject.toml" in installed
    assert "sbom.cdx.json" in installed
    assert ("--no-build" in installed) == (target != "gpu")


def test_the_build_context_holds_what_the_wheel_is_made_of_and_nothing_else() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE))
    sources = {source for line in copied for source in line.split()} | {"constraints.txt"}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)
