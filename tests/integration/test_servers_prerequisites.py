"""What `make test` says and does where the programs it needs are missing."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ops" / "dev" / "prerequisites.sh"
JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"
JAVA_11 = "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2"
needs_debian = pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="installs on Debian only")


def _run(folder: Path, *arguments: str, user: int, programs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the script as `user` where only `programs` (their shell code by name) and sed are found."""
    for name, code in {"id": f"echo {user}", **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    (folder / "sed").symlink_to("/bin/sed" if Path("/bin/sed").exists() else "/usr/bin/sed")
    return subprocess.run([str(SCRIPT), *arguments], env={"PATH": str(folder)}, capture_output=True, text=True)


def _logging_apt(folder: Path) -> str:
    return f'echo "$@" >> {folder}/apt.log'


def test_nothing_happens_where_all_is_there(tmp_path: Path) -> None:
    programs = {
        "java": JAVA_17,
        "mvn": "",
        "redis-server": "",
        "faketime": "",
        "chromium": "",
        "promtool": "",
        "apt-get": _logging_apt(tmp_path),
    }
    done = _run(tmp_path, user=0, programs=programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "apt.log").exists()


def test_a_user_is_told_what_to_install_and_nothing_is_done(tmp_path: Path) -> None:
    done = _run(tmp_path, user=1000, programs={"mvn": "", "faketime": "", "apt-get": _logging_apt(tmp_path)})
    assert done.returncode == 1
    assert "apt-get install default-jre-headless redis-server prometheus chromium" in done.stderr
    assert "maven" not in done.stderr.split("On macOS")[0]
    assert not (tmp_path / "apt.log").exists()


def test_a_java_too_old_counts_as_missing(tmp_path: Path) -> None:
    done = _run(
        tmp_path,
        user=1000,
        programs={"java": JAVA_11, "mvn": "", "redis-server": "", "faketime": "", "promtool": "", "chromium": ""},
    )
    assert done.returncode == 1
    assert "apt-get install default-jre-headless\n" in done.stderr


def test_servers_alone_need_no_browser(tmp_path: Path) -> None:
    programs = {"java": JAVA_17, "mvn": "", "redis-server": "", "faketime": ""}
    assert _run(tmp_path, "servers", user=1000, programs=programs).returncode == 0


def test_a_kubernetes_api_server_needs_etcd_and_nothing_of_the_others(tmp_path: Path) -> None:
    done = _run(tmp_path, "kubernetes", user=1000, programs={"openssl": ""})
    assert done.returncode == 1
    assert "apt-get install etcd-server\n" in done.stderr


def test_another_build_of_chromium_will_do(tmp_path: Path) -> None:
    programs = {"java": JAVA_17, "mvn": "", "redis-server": "", "faketime": "", "promtool": "", "google-chrome": ""}
    assert _run(tmp_path, user=1000, programs=programs).returncode == 0


@needs_debian
def test_root_on_debian_gets_only_what_is_missing_installed(tmp_path: Path) -> None:
    programs = {
        "java": JAVA_17,
        "redis-server": "",
        "faketime": "",
        "chromium": "",
        "promtool": "",
        "apt-get": _logging_apt(tmp_path),
    }
    done = _run(tmp_path, user=0, programs=programs)
    assert done.returncode == 0, done.stderr
    update, install = (tmp_path / "apt.log").read_text().splitlines()
    assert update.startswith("update")
    assert install.split()[-1] == "maven"
    assert not {"default-jre-headless", "redis-server"} & set(install.split())


@needs_debian
def test_a_failed_installation_fails(tmp_path: Path) -> None:
    done = _run(tmp_path, user=0, programs={"apt-get": "exit 100"})
    assert done.returncode == 100


def test_the_script_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)
