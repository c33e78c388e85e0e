"""Finds keys and values of a Serve config that Ray would silently ignore.

Ray ignores unknown keys, so that an older version can read a newer version's configs: a mistyped `max_replcas` is not
an error and has no effect. Where Ray accepts a dictionary, it accepts any dictionary.
"""

import copy
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ray.runtime_env import RuntimeEnv
from ray.serve.config import AutoscalingPolicy

from schemas.explain import DocumentProblem, problems, suggestion

Path = tuple[str | int, ...]

_RUNTIME_ENV: Final = "runtime_env"
_LOOSE: Final[Mapping[str, type[BaseModel]]] = {"autoscaling_policy": AutoscalingPolicy}
"""Keys whose values Ray declares as plain dictionaries, and their real types."""


def unknown_keys(model: type[BaseModel], data: object, path: Path) -> Iterator[DocumentProblem]:
    """Keys of `data`, at any depth, for which the model has no field."""
    if not isinstance(data, dict):
        return  # the model's validation reports it
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in data.items():
        below = (*path, key)
        if key not in fields:
            yield DocumentProblem(below, f"is not a known key{suggestion(str(key), fields)}")
        elif key == _RUNTIME_ENV and isinstance(value, dict):
            yield from _of_runtime_env(value, below)
        else:
            yield from _below(_LOOSE.get(key, fields[key].annotation), value, below)


def refused_values(model: type[BaseModel], data: object, path: Path) -> Iterator[DocumentProblem]:
    """The model's validation errors for `data`."""
    try:
        model.model_validate(copy.deepcopy(data))  # Ray's validators modify their input
    except ValidationError as error:
        yield from (DocumentProblem((*path, *problem.path), problem.text) for problem in problems(error))
    except Exception as error:  # noqa: BLE001  # validators import what a config names, and that may do anything
        yield DocumentProblem(path, f"{type(error).__name__}: {error}")


def _of_runtime_env(value: Mapping[Any, Any], path: Path) -> Iterator[DocumentProblem]:
    known = sorted(RuntimeEnv.known_fields)
    unknown = [name for name in value if name not in known]
    yield from (DocumentProblem((*path, n), f"is not a known key{suggestion(str(n), known)}") for n in unknown)
    if not unknown:
        try:
            RuntimeEnv(**copy.deepcopy(dict(value)))
        except Exception as error:  # noqa: BLE001  # it reads the files that it names
            yield DocumentProblem(path, " ".join(str(error).split()))


def _below(annotation: Any, value: object, path: Path) -> Iterator[DocumentProblem]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield from unknown_keys(annotation, value, path)
    elif origin is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _below(arguments[0], item, (*path, index))
    elif origin is Annotated:
        yield from _below(arguments[0], value, path)
    elif origin in (Union, types.UnionType):
        loose = any(get_origin(kind) is dict or kind is dict for kind in arguments)
        for kind in arguments:
            yield from _below(kind, value, path)
            if loose and isinstance(value, dict) and inspect.isclass(kind) and issubclass(kind, BaseModel):
                yield from refused_values(kind, value, path)
