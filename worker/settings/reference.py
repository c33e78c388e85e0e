"""`python -m worker.settings.reference` writes docs/configuration.md from the settings models. `--check` writes nothing
and fails when the file is out of date.
"""

import argparse
import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.settings.tree import DELIMITER, PREFIX, Settings

FILE: Final = Path(__file__).parents[2] / "docs" / "configuration.md"

_INTRODUCTION: Final = f"""\
# Configuration reference

<!-- Written by `python -m worker.settings.reference` from worker/settings. Do not edit it here. -->

Settings are one YAML file, given as `--config FILE`. Every key can also be set by an environment variable, which
overrides the file: the prefix `{PREFIX}`, then the key's path in capitals, joined by `{DELIMITER}`. For example
`{PREFIX}KAFKA{DELIMITER}BOOTSTRAP_SERVERS` sets `kafka.bootstrap_servers`. In a variable, lists and mappings are JSON.

`NAME` in a key stands for any name; in a variable, use a name without capitals. An unknown key is an error that
names its line. Relative paths in the file start from the file's folder. `sluice config show` prints the settings in
effect, without secrets.

S3 credentials are not settings: boto3 finds them (`AWS_ACCESS_KEY_ID`, profiles, instance roles).
"""


def reference() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION, *_section("Top level", "", Settings)]
    for name, field in Settings.model_fields.items():
        model = _model_of(field.annotation)
        if model is not None:
            parts += _section(f"`{name}`", f"{name}.", model)
    return "\n".join(parts)


def _section(title: str, prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """A table of a model's own keys, then the sections below it."""
    below = {name: inner for name, field in model.model_fields.items() if (inner := _model_of(field.annotation))}
    told = _field_docstrings(model)
    schema = model.model_json_schema()
    yield f"## {title}\n"
    yield f"{inspect.cleandoc(model.__doc__ or '')}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        if name in below and (model is Settings or field.default is not None):
            continue
        kind = _type(schema["properties"][name], schema.get("$defs", {}))
        yield f"| `{prefix}{name}` | {kind} | {_default(field)} | {told.get(name, '')} |"
    yield ""
    for name, inner in below.items():
        if model is not Settings:
            path = (
                f"{prefix}{name}.NAME" if get_origin(model.model_fields[name].annotation) is dict else f"{prefix}{name}"
            )
            yield from _section(f"`{path}`", f"{path}.", inner)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: directly, optionally, or as the values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_of(part))), None)


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A field's type and limits, as text."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = definitions[name]
        return "section" if target.get("type") == "object" else _type(target, definitions)
    if "anyOf" in schema:
        kinds = [_type(part, definitions) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {}), definitions)}"
        case "object":
            named = schema.get("patternProperties", {})
            values: Any = schema.get("additionalProperties") or next(iter(named.values()), {})
            return f"mapping to {_type(values, definitions)}"
        case "string":
            return {"path": "path", "password": "secret text"}.get(schema.get("format", ""), "text")
        case kind:
            return {"boolean": "true or false"}.get(str(kind), str(kind or "value")) + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    signs = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
    return f" {', '.join(limits)}" if limits else ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if value is None:
        return "not set"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple | frozenset | set):
        value = [part if isinstance(part, int | float) else str(part) for part in value]
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`".replace('`"', "`").replace('"`', "`")


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The texts that follow the fields in the model's source, each on one line."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    told = {}
    body: Sequence[ast.stmt] = getattr(definition, "body", [])
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            told[ast.unparse(field.target)] = " ".join(str(text.value.value).split()).replace("|", "\\|")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is out of date")
    text = reference()
    if not parser.parse_args().check:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
        print(f"{FILE}: out of date; run: python -m worker.settings.reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
