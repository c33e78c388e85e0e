"""Serves the desk on a thread of its own."""

import socket
import threading
import time

import structlog
import uvicorn
from fastapi import FastAPI

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
DRAIN_SECONDS = 5
BACKLOG = 128


class DeskServerError(Exception):
    """The server could not listen; the message says where and why."""


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on. Raises DeskServerError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise DeskServerError(f"the desk cannot listen on {host}:{port}: {error}; set web.host and web.port") from error


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
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="desk", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise DeskServerError("the desk did not start; its log tells why")
            time.sleep(0.01)
        log.info("desk_listening", host=listener.getsockname()[0], port=listener.getsockname()[1])

    def close(self) -> None:
        """Ends open streams, finishes requests, stops."""
        self._app.state.broadcast.close()  # the server waits for its streams, which have no end of their own
        self._server.should_exit = True
        self._thread.join(DRAIN_SECONDS + 5)
