"""`sluice deploy check`: finds mistakes in a Serve config before it is deployed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray.serve.schema import ServeDeploySchema

from schemas.explain import DocumentProblem
from worker.apps.checking.applications import Built, build
from worker.apps.checking.keys import refused_values, unknown_keys
from worker.apps.checking.online import problems_online
from worker.apps.checking.placeholders import placeholders
from worker.apps.checking.rules import misfits, notes
from worker.yaml_document import YamlDocument, YamlError, read_yaml


class DeployConfigError(Exception):
    """The config cannot be deployed. Each line names a problem: file, line, key and what is expected."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A config in which no mistake was found. `notes`: what could not be checked."""

    applications: tuple[str, ...]
    notes: tuple[str, ...]


def check(file: Path, *, online: bool = False) -> Checked:
    """Checks a config for `serve run` and `serve deploy`. Imports what it names. Raises DeployConfigError.

    Relative paths in it start from the working directory, as for Ray. `online`: if nothing else is wrong, also checks
    the model, policy, Kafka, Redis and S3 that the config names.
    """
    try:
        document = read_yaml(file)
    except YamlError as error:
        raise DeployConfigError(str(error)) from None
    found = list(unknown_keys(ServeDeploySchema, document.data, ()))
    found.extend(refused_values(ServeDeploySchema, document.data, ()))
    applications = list(_built(document, found))
    options = document.data.get("http_options")
    found.extend(misfits(applications, options if isinstance(options, dict) else {}))
    found.extend(placeholders(document.data))
    if online and not found:
        found.extend(problems_online(applications))
    if found:
        # An error that prevents reading the config is reported with its line, if that is known.
        placed = {problem.text for problem in found if problem.path}
        told = [problem for problem in found if problem.path or problem.text not in placed]
        told.sort(key=lambda problem: document.line(problem.path))
        raise DeployConfigError("\n".join(dict.fromkeys(f"{document.at(each.path)}: {each}" for each in told)))
    return Checked(tuple(built.name for built in applications), tuple(notes(applications, online=online)))


def _built(document: YamlDocument, found: list[DocumentProblem]) -> Iterator[Built]:
    entries = document.data.get("applications")
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield build(entry, ("applications", index), found)
