"""The door for machines: `/metrics` for Prometheus, `/healthz` for whoever restarts the worker."""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable
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


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the worker does its work, and if not, why."""

    healthy: bool = True
    reasons: tuple[str, ...] = ()


class TelemetryServerError(Exception):
    """The server could not listen."""


class TelemetryServer:
    """Serves until closed, from its own thread. `/healthz` answers 200, or 503 with the reasons.

    `health` is asked at each request and must not wait; if it raises, that is a reason too.
    Raises TelemetryServerError when the address cannot be had. Port 0 takes a free one, told by `port`.
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
    timeout = 10  # a client that connects and says nothing must not keep a thread

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not events."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

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
