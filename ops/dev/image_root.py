"""Runs the steps of deploy/docker/Dockerfile for one target in a root of Debian's packages, without Docker, and tries
the result: python -m ops.dev.image_root [TARGET]

It needs root, mmdebstrap and a few minutes. It shows that the steps work and that the result runs as uid 1000 on a
read-only root; layers, caches between stages and the base images of the registry are not tried.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.dev.deployment_tools import tools_folder

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "deploy" / "docker" / "Dockerfile"
PACKAGES: Final = "ca-certificates,python3,python3-venv,python-is-python3"
"""What of python:3.11-slim-bookworm the steps use."""
LARGEST_MIB: Final = {"cpu": 800, "desk": 900}
"""A root that is larger fails."""
WRITABLE: Final = ("/tmp", "/var/cache/sluice", "/var/lib/sluice")
PASSED_ON: Final = re.compile(r"(PIP|UV|SSL|REQUESTS)_\w+|\w+_proxy", re.IGNORECASE)
"""Variables of this machine that its registries need."""
INSIDE: Final = "SLUICE_IMAGE_ROOT_INSIDE"
IN_ROOT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(slots=True)
class Stage:
    """A stage of the Dockerfile: its name, what it begins from, and its instructions."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def needs(self) -> list[str]:
        """The stages whose files it uses, in the order in which it names them."""
        return [self.base, *(name for _, text in self.steps for name in re.findall(r"(?:--|,)from=([\w-]+)", text))]


def read_stages(text: str) -> dict[str, Stage]:
    """The stages by name. Comments are dropped, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = Stage(name, base)
        elif word and current is not None:
            current.steps.append((word, rest.strip()))
    return stages


def in_order(stages: Mapping[str, Stage], target: str) -> list[Stage]:
    """The stages that the target is made from, each after those that it needs."""
    done: dict[str, Stage] = {}

    def add(name: str) -> None:
        if name in stages and name not in done:
            for needed in stages[name].needs():
                add(needed)
            done[name] = stages[name]

    add(target)
    return list(done.values())


class ImageRoot:
    """One folder in which all stages are run, one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._work: dict[str, str] = {}
        self._environment: dict[str, dict[str, str]] = {}

    def run_stage(self, stage: Stage) -> None:
        """Does what the stage says. Raises CalledProcessError."""
        work = self._work.get(stage.base, "/")
        environment = dict(self._environment.get(stage.base, IN_ROOT))
        arguments: dict[str, str] = {}
        for word, rest in stage.steps:
            if word == "ARG":
                name, _, value = rest.partition("=")
                arguments[name] = value
            elif word == "ENV":
                pairs = (pair.partition("=") for pair in shlex.split(rest))
                environment |= {name: value.replace("$PATH", environment["PATH"]) for name, _, value in pairs}
            elif word == "WORKDIR":
                work = rest
                self._at(work).mkdir(parents=True, exist_ok=True)
            elif word == "COPY" and not rest.startswith("--from"):
                self._copy(rest.split(), work)
            elif word == "RUN":
                self._run(stage.name, rest, work, environment | arguments)
        self._work[stage.name], self._environment[stage.name] = work, environment

    def _run(self, stage: str, text: str, work: str, environment: Mapping[str, str]) -> None:
        command = text
        bound: list[Path] = []
        while (mount := re.match(r"--mount=(\S+)\s+", command)) is not None:
            command = command[mount.end() :]
            options = dict(option.split("=", 1) for option in mount[1].split(","))
            if options["type"] == "bind" and "from" not in options:
                target = self._at(work) / options["target"]
                shutil.copy2(ROOT / options["source"], target)
                bound.append(target)
        print(f"[{stage}] {command[:150]}", flush=True)
        ours = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        variables = {**environment, "SSL_CERT_FILE": CERTIFICATES, **ours}
        subprocess.run(
            ["chroot", str(self._folder), "/bin/sh", "-c", f"cd {shlex.quote(work)} && {command}"],
            env=variables,
            check=True,
        )
        for target in bound:
            target.unlink()

    def _copy(self, names: list[str], work: str) -> None:
        *sources, target = names
        for name in sources:
            to = self._at(work) / target / (name if (ROOT / name).is_dir() else Path(name).name)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self._at(work) / target, dirs_exist_ok=True, ignore=_caches)
            else:
                shutil.copy2(ROOT / name, to)

    def _at(self, path: str) -> Path:
        return self._folder / path.lstrip("/")


def _caches(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}


@contextmanager
def mounted(source: str, target: Path, *options: str) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *options, source, str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@contextmanager
def built(target: str) -> Iterator[Path]:
    """The root of the target, without what only its building needed."""
    base, packages = tools_folder() / "image-base-bookworm.tar", tools_folder() / "image-packages"
    packages.mkdir(parents=True, exist_ok=True)
    if not base.exists():
        part = base.with_suffix(".part")
        options = ["--quiet", "--variant=minbase", f"--include={PACKAGES}", "--format=tar"]
        subprocess.run(["mmdebstrap", *options, "bookworm", str(part)], check=True)
        part.rename(base)
    with tempfile.TemporaryDirectory(prefix="sluice-image-") as name, ExitStack() as mounts:
        folder = Path(name) / "root"
        folder.mkdir(mode=0o755)
        Path(name).chmod(0o755)
        subprocess.run(["tar", "--extract", "--file", str(base), "--directory", str(folder)], check=True)
        # Debian's own pip refuses to install beside its packages; the image of the registry has a Python of its own.
        subprocess.run(["chroot", str(folder), "python3", "-m", "venv", "/usr/local"], env=IN_ROOT, check=True)
        size_of_base = mebibytes(folder)
        mounts.enter_context(mounted("proc", folder / "proc", "-t", "proc"))
        for file in ("/etc/resolv.conf", CERTIFICATES):
            shutil.copy2(file, folder / file.lstrip("/"))
        with mounted(str(packages), folder / "root/.cache", "--bind"):
            root = ImageRoot(folder)
            for stage in in_order(read_stages(DOCKERFILE.read_text()), target):
                root.run_stage(stage)
        subprocess.run(
            ["chroot", str(folder), "/usr/local/bin/pip", "uninstall", "--yes", "--quiet", "uv"],
            env=IN_ROOT,
            check=True,
        )
        for only_built_with in ("opt/cyclonedx", "src", "wheels"):
            shutil.rmtree(folder / only_built_with, ignore_errors=True)
        print(f"{target}: {mebibytes(folder / 'opt')} MiB of packages on {size_of_base} MiB of Debian", flush=True)
        yield folder


def mebibytes(folder: Path) -> int:
    done = subprocess.run(
        ["du", "--summarize", "--one-file-system", "--block-size=1M", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[0])


def try_root(folder: Path) -> list[dict[str, object]]:
    """Scores the sample images as uid 1000 on a read-only root; what came out of it."""
    samples = "/opt/sluice/lib/python3.11/site-packages/worker/samples/images"
    with ExitStack() as mounts:
        for place in WRITABLE:
            mounts.enter_context(mounted("tmpfs", folder / place.lstrip("/"), "-t", "tmpfs", "-o", "uid=1000,gid=1000"))
        seen = folder.with_name("read-only")
        mounts.enter_context(mounted(str(folder), seen, "--rbind"))
        subprocess.run(["mount", "-o", "remount,bind,ro", str(seen)], check=True)
        environment = {**IN_ROOT, "PATH": f"/opt/sluice/bin:{IN_ROOT['PATH']}", "HOME": "/var/lib/sluice"}
        environment |= {"XDG_CACHE_HOME": "/var/cache/sluice", "PYTHONUNBUFFERED": "1"}
        chroot = ["chroot", "--userspec=1000:1000", str(seen)]
        wrote = subprocess.run([*chroot, "touch", "/opt/sluice/x"], env=environment, capture_output=True, check=False)
        if wrote.returncode == 0:
            raise AssertionError("the root can be written to")
        score = ["sluice", "score", samples, "--output", "-"]
        done = subprocess.run([*chroot, *score], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"sluice score ended with {done.returncode}: {done.stderr[-2000:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    if os.environ.get(INSIDE) is None:  # mounts of a namespace of its own end with the process, whatever happens
        command = ["unshare", "--mount", sys.executable, "-m", "ops.dev.image_root", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode)
    target = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    with built(target) as folder:
        size = mebibytes(folder)
        scored = try_root(folder)
        bill = json.loads((folder / "opt/sluice/sbom.cdx.json").read_text())
    print(f"{target}: {size} MiB; {len(scored)} images scored as uid 1000 on a read-only root; ", end="")
    print(f"{len(bill['components'])} components in its bill of materials")
    largest = LARGEST_MIB.get(target)
    if not scored or (largest is not None and size > largest):
        sys.exit(f"{target}: {len(scored)} images scored, {size} MiB; at most {largest} are wanted")


if __name__ == "__main__":
    main()
