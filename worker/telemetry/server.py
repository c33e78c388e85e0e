"""The HTTP server for `/metrics` (Prometheus) and `/healthz` (health checks).

Python's own server with prometheus_client's application, on a thread. Not uvicorn: it would cost each worker 35 to
60 ms of CPU time at the start and 3 MB, be a base dependency, and has no deadline for a request that comes slowly (the
desk adds one in worker/review/http/server.py).
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger(__name__)

CONNECTIONS = 16
"""At once: another one takes the place of the oldest."""
SECONDS = 15.0
"""Maximum duration of a connection. Prometheus times out after ten seconds."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the worker is healthy, and if not, why."""

    healthy: bool = True
    reasons: tuple[str, ...] = ()


class TelemetryServerError(Exception):
    """The server could not listen."""


class TelemetryServer:
    """Serves until closed, from its own thread. `/healthz` answers 200, or 503 with the reasons.

    `health` is asked at each request and must not wait; if it raises, that is a reason too. Slow clients take no more
    than CONNECTIONS threads and sockets, keep nobody else waiting, and are cut off after SECONDS. Raises
    TelemetryServerError if the address cannot be used. Port 0 takes a free port; `port` has its number.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Callable[[], Health]) -> None:
        try:
            self._server = _Server.listening(host, port)
        except OSError as error:
            raise TelemetryServerError(
                f"cannot serve metrics on {host}:{port}: {error}; set telemetry.host and telemetry.metrics_port"
            ) from error
        self._server.set_app(_application(registry, health))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="telemetry", daemon=True)
        self._thread.start()
        log.info("telemetry_listening", host=host, port=self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _application(registry: CollectorRegistry, health: Callable[[], Health]) -> "WSGIApplication":
    metrics = make_wsgi_app(registry)

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        if path != "/healthz":
            return _json(start_response, HTTPStatus.NOT_FOUND, {"error": "there are /metrics and /healthz"})
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _json(start_response, HTTPStatus.METHOD_NOT_ALLOWED, {"error": "use GET"})
        try:
            state = health()
        except Exception as error:  # a check that fails must not read as healthy
            log.exception("health_check_failed")
            state = Health(False, (f"the health check failed: {type(error).__name__}",))
        status = HTTPStatus.OK if state.healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(start_response, status, {"healthy": state.healthy, "reasons": state.reasons})

    return answer


def _json(start_response: "StartResponse", status: HTTPStatus, body: dict[str, Any]) -> list[bytes]:
    content = json.dumps(body).encode()
    start_response(
        f"{status.value} {status.phrase}",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            *([("Allow", "GET, HEAD")] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        ],
    )
    return [content]


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread for each connection; connections are few and short."""

    daemon_threads = True
    request_queue_size = 128  # with the usual 5, TCP lets a client wait for a second while others come

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._opened: dict[socket.socket, float] = {}  # the oldest first
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._opened) == CONNECTIONS:
                self._cut(next(iter(self._opened)))
            self._opened[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called by `serve_forever` twice a second, and after each connection."""
        self._cut_older_than(SECONDS)

    def server_close(self) -> None:
        super().server_close()
        self._cut_older_than(0)

    def _cut_older_than(self, seconds: float) -> None:
        with self._lock:
            over = time.monotonic() - seconds
            for request in [request for request, opened in self._opened.items() if opened <= over]:
                self._cut(request)

    def _cut(self, request: socket.socket) -> None:
        """Shuts the socket down, so that its thread stops waiting and ends."""
        del self._opened[request]
        with suppress(OSError):  # the client was faster
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._opened.pop(request, None)
        super().shutdown_request(request)

    @classmethod
    def listening(cls, host: str, port: int) -> "_Server":
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        server_class = type(cls.__name__, (cls,), {"address_family": family})
        server: _Server = server_class((host, port), _Handler)
        return server

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks the DNS for a name nobody needs, and may wait for it
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("telemetry_request_failed", error=sys.exception())
