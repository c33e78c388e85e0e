"""Routes whose answers are written where they are made."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter


class SerializedRoute(APIRoute):
    """Turns what a plain function returns into JSON on the function's own thread.

    FastAPI itself validates an answer once more, which needs another turn of a thread, and writes it on the event loop,
    where everybody waits. Ours are made of models that have just been validated. Of an injected response, headers are
    not taken over.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint if iscoroutinefunction(endpoint) else _writing(endpoint), **options)


def _writing(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    adapter: TypeAdapter[Any] | None = None
    returned = signature(endpoint).return_annotation
    if not (isinstance(returned, type) and issubclass(returned, Response)):
        adapter = TypeAdapter(returned)

    @wraps(endpoint)
    def written(*arguments: Any, **named: Any) -> Response:
        answer = endpoint(*arguments, **named)
        if adapter is None:
            return answer  # type: ignore[no-any-return]
        return Response(adapter.dump_json(answer), media_type="application/json")

    return written
