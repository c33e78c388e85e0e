"""Adds to `/v1/openapi.json` what FastAPI does not know: request bodies, problem documents and keys."""

from typing import Any, Final

from fastapi import FastAPI

from schemas import ImageEvent
from schemas.generate import json_schema
from worker.apps.http.body import IMAGE_FIELD, TEXT_FIELDS

_SCHEMAS: Final = "#/components/schemas/"
_KEY: Final[list[dict[str, list[str]]]] = [{"key": []}, {}]
"""Without keys in the settings, programs on the same machine need none."""


def _problem(description: str, *headers: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
        "content": {"application/problem+json": {"schema": {"$ref": f"{_SCHEMAS}Problem"}}},
    }


_STRANGERS: Final[dict[int | str, dict[str, Any]]] = {
    401: _problem("No key, or an unknown one.", "WWW-Authenticate"),
    403: _problem("There are no keys, and the caller is not on this machine."),
}
OF_METADATA: Final = {**_STRANGERS, "default": _problem("Any other answer.")}
OF_MODELS: Final[dict[int | str, dict[str, Any]]] = {
    404: _problem("The gateway serves another model or version."),
    "default": _problem("Any other answer."),
}
OF_SCORE: Final[dict[int | str, dict[str, Any]]] = {
    **_STRANGERS,
    413: _problem("The body is too large. Fails closed: see `route`."),
    415: _problem("Neither JSON nor a form."),
    422: _problem("Not an image event, or an image that cannot be judged. Fails closed: see `route`."),
    429: _problem("The caller has too many requests in progress.", "Retry-After"),
    500: _problem("An internal error, or a policy rule that failed. Fails closed."),
    503: _problem("Too busy, or a server that the gateway needs does not answer. Try again.", "Retry-After"),
    504: _problem("Timeout. Fails closed; try again.", "Retry-After"),
}
NEEDS_KEY: Final[dict[str, Any]] = {"security": _KEY}
SCORE: Final[dict[str, Any]] = {
    **NEEDS_KEY,
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": f"{_SCHEMAS}ImageEvent"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [IMAGE_FIELD],
                    "properties": {
                        IMAGE_FIELD: {"type": "string", "format": "binary"},
                        **{name: {"type": "string"} for name in TEXT_FIELDS},
                    },
                    "additionalProperties": False,
                }
            },
        },
    },
}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "`urn:sluice:problem:` and a code for programs."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A message for people."},
        "error": {
            "type": "string",
            "description": ("Below `/v2`: the same as `detail`, by the name that the Open Inference Protocol uses."),
        },
        "route": {"$ref": f"{_SCHEMAS}Route"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "what"],
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
}


class Described(FastAPI):
    """An application whose OpenAPI document has these components. Few client generators find schemas outside
    `components`.
    """

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        event = _moved(json_schema(ImageEvent))
        own = {**event.pop("$defs"), "Problem": _PROBLEM}
        own["ImageEvent"] = {key: value for key, value in event.items() if not key.startswith("$")}
        document["components"]["schemas"] |= own
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document


def _moved(schema: Any) -> Any:
    """The schema with references to the places of its definitions in the document."""
    if isinstance(schema, dict):
        return {key: _moved(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_moved(each) for each in schema]
    return schema.replace("#/$defs/", _SCHEMAS) if isinstance(schema, str) else schema
