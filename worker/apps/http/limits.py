"""Limits on requests in progress, and on the bytes of their bodies."""

from collections import Counter
from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from worker.review.http.problems import Problem
from worker.settings import GatewaySettings, ImageSettings

RETRY_SECONDS: Final = "1"
ROOM_FOR_THE_REST: Final = 1024 * 1024
"""Bytes for everything in a body except the image."""


class Seat:
    """One request's place within the limits, held until `leave`."""

    def __init__(self, limits: "Limits", caller: str) -> None:
        self._limits = limits
        self._caller = caller
        self._bytes = 0
        self._left = False

    async def read(self, request: Request) -> bytes:
        """Reads the body. Raises Problem: 413 if it is too large, 503 if there is no memory for it now."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limits.max_body_bytes:
            raise self._limits.too_large()
        chunks: list[bytes] = []
        async for chunk in request.stream():
            if self._bytes + len(chunk) > self._limits.max_body_bytes:
                raise self._limits.too_large()
            self._limits.take_bytes(len(chunk))
            self._bytes += len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def leave(self) -> None:
        """Releases everything. Idempotent."""
        if not self._left:
            self._left = True
            self._limits.free(self._caller, self._bytes)


class Limits:
    """The limits of one replica. Not thread-safe: use it on the event loop only."""

    def __init__(self, settings: GatewaySettings, images: ImageSettings) -> None:
        self._settings = settings
        self.max_body_bytes = 4 * (images.max_bytes + 2) // 3 + ROOM_FOR_THE_REST
        self._of_caller: Counter[str] = Counter()
        self._bytes = 0

    @property
    def requests(self) -> int:
        """The number of requests in progress."""
        return self._of_caller.total()

    def enter(self, caller: str) -> Seat:
        """Admits a request. Raises Problem: 429 if the caller has too many requests in progress, 503 if the replica
        has.
        """
        most = self._settings.max_requests_a_caller
        if self._of_caller[caller] >= most:
            detail = f"{most} of your requests are in progress, and gateway.max_requests_a_caller allows no more"
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", detail, headers={"Retry-After": RETRY_SECONDS}
            )
        if self.requests >= self._settings.max_requests:
            raise _busy("too many requests are in progress (gateway.max_requests)")
        self._of_caller[caller] += 1
        return Seat(self, caller)

    def take_bytes(self, number: int) -> None:
        if self._bytes + number > self._settings.max_bytes_in_flight:
            raise _busy("request bodies in progress fill the memory limit (gateway.max_bytes_in_flight)")
        self._bytes += number

    def free(self, caller: str, number: int) -> None:
        self._of_caller[caller] -= 1
        self._bytes -= number

    def too_large(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-large",
            f"a body may have at most {self.max_body_bytes} bytes; images.max_bytes sets it",
        )


def _busy(why: str) -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        (f"{why}; try again after the time in Retry-After"),
        headers={"Retry-After": RETRY_SECONDS},
    )
