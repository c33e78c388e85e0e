"""Builds the applications of a Serve config locally, as Ray would on the cluster, to find errors."""

import copy
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel
from ray import serve
from ray.serve.deployment import Deployment

from schemas.explain import DocumentProblem, suggestion
from worker.apps.arguments import Arguments, changed
from worker.apps.checking.keys import Path, refused_values, unknown_keys
from worker.apps.ray_private import (
    build_app,
    call_user_app_builder_with_args_if_necessary,
    import_attr,
    validate_route_prefix,
)
from worker.settings import Settings, SettingsError

_SETTING: Final = re.compile(r"(?:args\.settings|user_config): (?:([\w.\[\]]+): )?(.*)", re.DOTALL)


@dataclass(slots=True)
class Built:
    """One application: its entry in the config (`entry`, at `path`), and the result of building it."""

    path: Path
    entry: Mapping[str, Any]
    builder: Any = None
    arguments: Arguments | None = None
    settings: Settings | None = None
    """The settings of one of Sluice's applications with `user_config` applied. Without the settings file if that is not
    on this machine.
    """
    deployments: dict[str, Deployment] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.entry.get("name", ""))

    def entries(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """The deployments in the config, each with its path."""
        listed = self.entry.get("deployments") or []
        for index, entry in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(entry, dict):
                yield (*self.path, "deployments", index), entry

    def option(self, deployment: str, name: str) -> tuple[Path, Any]:
        """The effective option of a deployment, and the place where the config sets it or could set it."""
        for path, entry in self.entries():
            if entry.get("name") == deployment and name in entry:
                return (*path, name), entry[name]
        return self.path, getattr(self.deployments[deployment]._deployment_config, name)


def build(entry: Mapping[str, Any], path: Path, found: list[DocumentProblem]) -> Built:
    """Imports and builds the application. Problems are added to `found`."""
    built = Built(path, entry)
    try:
        validate_route_prefix(entry.get("route_prefix"))
    except ValueError as error:
        found.append(DocumentProblem((*path, "route_prefix"), str(error)))
    except AttributeError:  # not a string: the schema check reports it
        pass
    if not isinstance(entry.get("import_path"), str):  # the schema check reports it
        return built
    try:
        built.builder = import_attr(entry["import_path"])
    except Exception as error:  # noqa: BLE001  # the module is the user's, and may do anything
        found.append(DocumentProblem((*path, "import_path"), f"cannot be imported: {type(error).__name__}: {error}"))
        return built
    if not _arguments_are_sound(built, found):
        return built
    try:
        application = _called(built)
        whole = build_app(application, name=built.name or "application")
        built.deployments = {str(deployment.name): deployment for deployment in whole.deployments}
        if built.arguments is not None:
            built.settings = built.arguments.load()
    except SettingsError as error:
        lines = [line for line in str(error).splitlines() if not built.notes or _SETTING.fullmatch(line)]
        found.extend(_setting(line, (*path, "args"), (*path, "args", "settings")) for line in lines)
    except Exception as error:  # noqa: BLE001  # as above
        found.append(DocumentProblem(path, f"cannot be built: {type(error).__name__}: {error}"))
    else:
        found.extend(_of_deployments(built))
        found.extend(_of_options(built, [problem.path for problem in found]))
    return built


def _arguments_are_sound(built: Built, found: list[DocumentProblem]) -> bool:
    """Checks `args` against the builder's model, if it has one."""
    model, path = _model(built.builder), (*built.path, "args")
    if model is None:
        return True
    given = built.entry.get("args") or {}
    # Validated with unknown keys forbidden, so that they are reported too.
    unknown = list(unknown_keys(model, given, path))
    told = {problem.path for problem in unknown}
    refused = [problem for problem in refused_values(model, given, path) if problem.path not in told]
    found.extend((*unknown, *refused))
    if unknown or refused:
        return False
    if issubclass(model, Arguments):
        arguments = model.model_validate(given)
        if arguments.config is not None and not arguments.config.is_file():
            built.notes.append(f"{arguments.config} is not on this machine, so it was not checked")
            arguments = arguments.model_copy(update={"config": None})
        built.arguments = arguments
    return True


def _called(built: Built) -> serve.Application:
    if built.arguments is not None and inspect.isfunction(built.builder):
        application: serve.Application = built.builder(built.arguments)
        return application
    return call_user_app_builder_with_args_if_necessary(built.builder, dict(built.entry.get("args") or {}))


def _model(builder: object) -> type[BaseModel] | None:
    """The annotation of a builder's only parameter."""
    if not inspect.isfunction(builder):
        return None
    parameters = list(inspect.signature(builder).parameters.values())
    kind = parameters[0].annotation if parameters else None
    return kind if inspect.isclass(kind) and issubclass(kind, BaseModel) else None


def _of_deployments(built: Built) -> Iterator[DocumentProblem]:
    seen = set()
    for path, entry in built.entries():
        yield from _of_scaling(entry.get("autoscaling_config"), (*path, "autoscaling_config", "policy"))
        name = entry.get("name")
        if not isinstance(name, str):
            continue  # the schema check reports it
        if name in seen:
            yield DocumentProblem((*path, "name"), f"there are two entries for {name!r}; Ray would use only one")
        seen.add(name)
        if name not in built.deployments:
            text = f"the application has no deployment {name!r}{suggestion(name, built.deployments)}"
            yield DocumentProblem((*path, "name"), text)
        elif entry.get("user_config") is not None:
            yield from _of_user_config(built, name, entry["user_config"], (*path, "user_config"))


def _of_user_config(built: Built, deployment: str, given: Any, path: Path) -> Iterator[DocumentProblem]:
    if not hasattr(built.deployments[deployment].func_or_class, "reconfigure"):
        yield DocumentProblem(
            path, (f"{deployment!r} has no user_config and could not start with one; put the settings under args")
        )
    elif built.settings is not None:
        try:
            built.settings = changed(built.settings, given, "user_config")
        except SettingsError as error:
            yield from (_setting(line, path, path) for line in str(error).splitlines())


def _of_options(built: Built, told: Sequence[Path]) -> Iterator[DocumentProblem]:
    """Ray's own checks of a deployment, unless a problem with it is already known (`told`)."""
    for path, entry in built.entries():
        deployment = built.deployments.get(str(entry.get("name")))
        if deployment is None or any(each[: len(path)] == path for each in told):
            continue
        known = inspect.signature(deployment.options).parameters
        try:
            deployment.options(**{key: copy.deepcopy(value) for key, value in entry.items() if key in known})
        except (TypeError, ValueError) as error:
            yield DocumentProblem(path, f"Ray refuses these options: {' '.join(str(error).split())}")


def _of_scaling(config: object, path: Path) -> Iterator[DocumentProblem]:
    """Checks that a policy class accepts its arguments. In Ray this fails in the controller, repeatedly."""
    policy = config.get("policy") if isinstance(config, dict) else None
    if not isinstance(policy, dict) or not isinstance(policy.get("policy_function"), str):
        return
    try:
        kind = import_attr(policy["policy_function"])
        if inspect.isclass(kind):
            kind(**(policy.get("policy_kwargs") or {}))
    except (TypeError, ValueError) as error:
        yield DocumentProblem((*path, "policy_kwargs"), str(error))
    except Exception:  # noqa: BLE001  # the check of the values reports the failed import
        return


def _setting(line: str, around: Path, settings: Path) -> DocumentProblem:
    """A line of a SettingsError, with the setting's path if the config sets it."""
    match = _SETTING.fullmatch(line)
    if match is None:  # from the settings file or a variable: the message names it
        return DocumentProblem(around, line)
    keys = re.findall(r"\w+", match[1] or "")
    return DocumentProblem((*settings, *(int(key) if key.isdigit() else key for key in keys)), match[2])
