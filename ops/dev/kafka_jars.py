"""The jars of a Kafka broker, and others, resolved by Maven once per pom and kept in the user's cache."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ops.dev.process import ServerError

POM = Path(__file__).with_name("pom.xml")
OLDEST_JAVA = 17

# In full: by its short name Maven would look for the plugin in every repository, and say only that it found none.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"


def kafka_jars() -> Path:
    """The folder with the jars of a broker. Raises as `maven_jars`."""
    return maven_jars(POM, "kafka")


def maven_jars(pom: Path, name: str) -> Path:
    """The folder with the jars that `pom` depends on. Needs Maven and its repository only the first time.

    Raises ServerError.
    """
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"
    jars = cache / f"{name}-jars-{digest}"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        raise ServerError(
            f"mvn is not on the PATH: install Maven (Debian: apt-get install maven), it fetches the jars of {name}"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fetched = Path(scratch) / "jars"
        # Maven would write "target" beside the pom: it gets a copy.
        shutil.copy(pom, scratch)
        command = ["mvn", "-q", "-B", _COPY, f"-DoutputDirectory={fetched}"]
        maven = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if maven.returncode != 0:
            raise ServerError(
                f"Maven could not fetch the jars of {name} ({' '.join(command)}):\n{maven.stdout}{maven.stderr}"
            )
        try:
            fetched.rename(jars)
        except OSError:  # somebody else was faster, and theirs are the same
            if not jars.is_dir():
                raise
    return jars


def java() -> str:
    """The java command. Raises ServerError when there is none, or one too old for Kafka 4."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    if found is None:
        raise ServerError(f"java is not there: install Java {OLDEST_JAVA} or newer (Debian: default-jre-headless)")
    spoken = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', spoken)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise ServerError(f"Kafka 4 needs Java {OLDEST_JAVA} or newer, but {found} says: {spoken.strip()}")
    return found
