"""A proxy before an S3 server that can be told to break in the ways object stores break."""

import http.client
import socket
import struct
import threading
import time
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DRIP_SECONDS = 0.2
TIMEOUT_SECONDS = 30.0
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Fault(StrEnum):
    """What the proxy does in place of passing an answer on."""

    ERROR = "500"
    UNAVAILABLE = "503"
    FORBIDDEN = "403"
    SLOW = "slow"
    """The body comes one byte every DRIP_SECONDS."""
    TRUNCATED = "truncated"
    """The connection ends in the middle of the body."""
    RESET = "reset"
    """The connection is reset before there is an answer."""


_BODIES = {Fault.ERROR: _INTERNAL, Fault.UNAVAILABLE: _SLOW_DOWN, Fault.FORBIDDEN: _DENIED}


class FaultProxy:
    """Passes requests on to the server, unless `fault` is set. Use it as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        """`host` and `port` are the server's."""
        self.fault: Fault | None = None
        self.broken = 0
        """Requests that met a fault."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy._answer(self, host, port)

            do_HEAD = do_PUT = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up, too
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, host: str, port: int) -> None:
        fault = self.fault
        if fault is None:
            self._pass_on(handler, host, port, None)
            return
        self.broken += 1
        if fault in _BODIES:
            body = _BODIES[fault]
            handler.send_response(int(fault.value))
            handler.send_header("Content-Type", "application/xml")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(body)
        elif fault is Fault.RESET:
            # Without lingering, close sends a reset.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
        else:
            self._pass_on(handler, host, port, fault)

    def _pass_on(self, handler: BaseHTTPRequestHandler, host: str, port: int, fault: Fault | None) -> None:
        upstream = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        try:
            length = int(handler.headers.get("Content-Length") or 0)
            # The Host header stays the client's: the signature covers it.
            headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
            upstream.request(handler.command, handler.path, handler.rfile.read(length) or None, headers)
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                handler.send_header(name, value)
        told = answer.getheader("Content-Length") if handler.command == "HEAD" else None
        handler.send_header("Content-Length", told or str(len(body)))
        handler.end_headers()
        if fault is Fault.TRUNCATED:
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
        elif fault is Fault.SLOW:
            for at in range(len(body)):
                if self.fault is not fault:  # the store is well again; so is the rest of this body
                    handler.wfile.write(body[at:])
                    break
                handler.wfile.write(body[at : at + 1])
                time.sleep(DRIP_SECONDS)
        else:
            handler.wfile.write(body)
