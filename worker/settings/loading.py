"""Loads settings from a YAML file and SLUICE_* variables.

No error message repeats a value from a file or a variable, because it may be a secret in the wrong place.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings.exceptions import SettingsError as VariableError

from schemas.explain import DocumentProblem, problems, suggestion
from worker.settings.tree import DELIMITER, PREFIX, Settings
from worker.yaml_document import YamlDocument, YamlError, read_yaml

ANY_NAME: Final = "*"
"""Stands for the name of an entry in the path of a setting. Variables set entries whose names have no capitals."""


class SettingsError(Exception):
    """The settings cannot be used. Each line names a problem: file and line, or variable, and what is expected."""


def load_settings(path: Path | None, env: Mapping[str, str]) -> Settings:
    """The settings of a file, overridden by the SLUICE_* variables of `env`.

    Relative paths in the file start from its folder, those in variables from the working directory. An empty variable
    counts as unset. Raises SettingsError.
    """
    variables = {name: value for name, value in env.items() if value and _is_ours(name)}
    _refuse_unknown(variables)
    try:
        document = read_yaml(path) if path is not None else None
        overrides = _Variables(variables)()
    except YamlError as error:
        raise SettingsError(str(error)) from None
    except VariableError as error:
        # The cause would repeat the value.
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{PREFIX}{field[1].upper()}" if field else f"{PREFIX}*"
        raise SettingsError(f'{name} or below: a value is not valid JSON; write a list as ["./images"]') from None
    except RecursionError:
        raise SettingsError(f"{', '.join(sorted(variables))}: a value is nested too deeply for a setting") from None
    data = _resolved(document.data, path.parent) if document is not None and path is not None else {}
    try:
        return Settings(**_merged(data, overrides))
    except ValidationError as error:
        known = [name.rpartition(".")[2] for name in _names(Settings)]
        lines = [_line(problem, document, variables) for problem in problems(error, known=known, echo=False)]
        raise SettingsError("\n".join(lines)) from None


def change_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` with `changes` merged into them, in the structure of a settings file.

    Relative paths start from the working directory. Raises SettingsError.
    """
    try:
        return Settings(**_merged(settings.model_dump(), changes))
    except ValidationError as error:
        known = [name.rpartition(".")[2] for name in _names(Settings)]
        raise SettingsError("\n".join(map(str, problems(error, known=known, echo=False)))) from None


class _Variables(EnvSettingsSource):
    """Reads variables from a mapping instead of the process's environment."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._given = variables
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._given.items()}


_KUBERNETES = re.compile(r"SLUICE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""Variables that Kubernetes sets in every pod of a namespace with a Service whose name begins with `sluice`."""


def _is_ours(name: str) -> bool:
    # Kubernetes replaces a hyphen with one underscore, so a name with two of them is a setting: SLUICE_WEB__PORT.
    return name.upper().startswith(PREFIX) and (DELIMITER in name or not _KUBERNETES.fullmatch(name))


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    """Rejects mistyped variables, which would otherwise have no effect."""
    known = [f"{PREFIX}{name.replace('.', DELIMITER)}".upper() for name in _names(Settings)]
    patterns = [re.compile(re.escape(name).replace(re.escape(ANY_NAME), "(?:(?!__).)+")) for name in known]
    unknown = [name for name in variables if not any(pattern.fullmatch(name.upper()) for pattern in patterns)]
    if unknown:
        lines = [f"{name}: no such setting{suggestion(name.upper(), known)}" for name in sorted(unknown)]
        raise SettingsError("\n".join(lines))


def _names(model: type[BaseModel]) -> Iterator[str]:
    """Every setting with its path: `kafka`, `kafka.topics`, `kafka.topics.images`, `review.queues.*.agree`."""
    for name, field in model.model_fields.items():
        yield name
        for path, section in sections_of(name, field.annotation):
            yield from (f"{path}.{inner}" for inner in _names(section))


def sections_of(name: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The section that a setting is, with its path: one that may be absent too; of a mapping, that of each entry."""
    path = f"{name}.{ANY_NAME}" if get_origin(annotation) is dict else name
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield path, kind


_PATHS = {
    "redis": ("password_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile"),
    "s3": ("ca_file",),
}
_KAFKA_PATHS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password_file", "sasl_password_file")
_KAFKA_PARTS = {
    "sasl_oauth": ("client_secret_file", "ca_file"),
    "schema_registry": ("password_file", "ca_file"),
}


def _resolved(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Makes relative paths in the file's data start from `folder`. Values of wrong types stay, for validation to
    report.
    """

    def resolve(value: object) -> object:
        if not isinstance(value, str) or not value or value.startswith("s3:"):
            return value
        if "\0" in value:
            raise SettingsError("a path contains a NUL character; remove it")
        # Links are not resolved: Kubernetes updates a mounted ConfigMap or Secret by changing where a link points.
        return os.path.abspath(folder / Path(value).expanduser())  # noqa: PTH100  # resolve() would follow them

    resolved = dict(data)
    if "policy" in data:
        resolved["policy"] = resolve(data["policy"])
    if isinstance(shadows := data.get("shadow_policies"), dict):
        resolved["shadow_policies"] = {name: resolve(value) for name, value in shadows.items()}
    model = data.get("model")
    if isinstance(model, str) and ("/" in model or model.endswith(".json")):
        resolved["model"] = resolve(model)
    files, kafka, engine = data.get("files"), data.get("kafka"), data.get("engine")
    if isinstance(engine, dict) and isinstance(place := engine.get("repository"), str) and "://" not in place:
        resolved["engine"] = engine | {"repository": resolve(place)}
    if isinstance(files, dict) and isinstance(files.get("roots"), list):
        resolved["files"] = files | {"roots": [resolve(root) for root in files["roots"]]}
    if isinstance(kafka, dict):
        resolved["kafka"] = {name: resolve(value) if name in _KAFKA_PATHS else value for name, value in kafka.items()}
        for part, names in _KAFKA_PARTS.items():
            if isinstance(found := kafka.get(part), dict):
                resolved["kafka"][part] = {n: resolve(value) if n in names else value for n, value in found.items()}
    for section, paths in _PATHS.items():
        if isinstance(found := data.get(section), dict):
            resolved[section] = {name: resolve(value) if name in paths else value for name, value in found.items()}
    return resolved


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` merged into it, section by section."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _line(problem: DocumentProblem, document: YamlDocument | None, variables: Mapping[str, str]) -> str:
    """One line for a problem, with the source of its value: the variable that set it, or the line of the file."""
    keys = [part for part in problem.path if isinstance(part, str)]
    setting = f"{PREFIX}{DELIMITER.join(keys)}".upper()
    by_variable = [name for name in variables if f"{setting}{DELIMITER}".startswith(f"{name.upper()}{DELIMITER}")]
    if by_variable:
        return f"{by_variable[0]}: {problem}"
    return f"{document.at(problem.path)}: {problem}" if document is not None else str(problem)
