"""The HTTP server of the desk, on its own thread."""

import asyncio
import socket
import threading
import time

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
DRAIN_SECONDS = 5
WATCH_SECONDS = 1.0
BACKLOG = 128
MAX_REQUEST_BYTES = 2 * 1024 * 1024
"""Of head, body and what frames them; the application says how much of a body it takes, which is less."""


REQUEST_SECONDS = 15.0
"""How long a request may take to come whole, from the connection on."""
MAX_UNFINISHED = 256
"""Connections without a whole request; a further one takes the place of the oldest."""


class DeskServerError(Exception):
    """The server could not listen; the message says where and why."""


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on. Raises DeskServerError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise DeskServerError(f"the desk cannot listen on {host}:{port}: {error}; set web.host and web.port") from error


class BoundedRequests(HttpToolsProtocol):
    """Closes a connection on which a request has more than MAX_REQUEST_BYTES, whatever they are, or does not come whole
    within REQUEST_SECONDS. httptools takes headers and trailers of any size, and keeps them, before the application
    sees a byte; uvicorn waits for the rest of a request without end."""

    _received: int | None = None
    """Bytes of a request that has no end yet."""
    _overdue: asyncio.TimerHandle | None = None
    """Set while a request is to come whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()
        if len(self.connections) > MAX_UNFINISHED:
            unfinished = [each for each in self.connections if getattr(each, "_overdue", None) is not None]
            if len(unfinished) > MAX_UNFINISHED:
                min(unfinished, key=lambda each: each._overdue.when())._cut()  # type: ignore[union-attr]

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._received = 0
        if self._overdue is None:
            self._expect()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._received = None
        self._came()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._received is None or self.transport.is_closing():
            return
        self._received += len(data)
        if self._received > MAX_REQUEST_BYTES:
            log.warning("desk_request_too_large", client=self.client, bytes=self._received)
            self.transport.close()

    def _expect(self) -> None:
        self._overdue = self.loop.call_later(REQUEST_SECONDS, self._cut)

    def _came(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _cut(self) -> None:
        self._came()
        if not self.transport.is_closing():
            log.info("desk_request_cut", client=self.client, reason="it did not come whole in time")
            self.transport.abort()


class DeskServer:
    """Serves an application until closed."""

    def __init__(self, app: FastAPI, listener: socket.socket, trusted_proxies: tuple[str, ...] = ()) -> None:
        """Returns when requests are answered. Raises DeskServerError."""
        self._app = app
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            timeout_graceful_shutdown=DRAIN_SECONDS,
            timeout_keep_alive=30,
            http=BoundedRequests,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="desk", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise DeskServerError("the desk did not start; see its log")
            time.sleep(0.01)
        log.info("desk_listening", host=listener.getsockname()[0], port=listener.getsockname()[1])

    def watch(self, stop: threading.Event) -> None:
        """A loop for a supervisor: raises DeskServerError once the server has ended, which fails the health check."""
        while not stop.wait(WATCH_SECONDS):
            if not self._thread.is_alive():
                raise DeskServerError("the server of the desk has ended; restart the process")

    def _serve(self, listener: socket.socket) -> None:
        try:
            self._server.run([listener])
        except BaseException:
            log.exception("desk_server_failed")
            raise

    def close(self) -> None:
        """Ends open streams, finishes requests, stops."""
        self._app.state.broadcast.close()  # the server waits for its streams, which have no end of their own
        self._server.should_exit = True
        self._thread.join(DRAIN_SECONDS + 5)
