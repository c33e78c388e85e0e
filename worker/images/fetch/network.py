"""The sockets under the HTTP fetcher: checked addresses, and one deadline over everything that a fetch does."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import httpcore

from schemas import FailureReason
from worker.images.errors import ImageError
from worker.images.fetch.addresses import is_public


class Deadline(threading.local):
    """When the fetch of the current thread must be over, and, while a body comes, when more of it must have come.
    Connections are shared by threads, deadlines are not."""

    ends_at = 0.0
    body_due = inf

    def start(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self.body_due = inf

    def remaining(self) -> float:
        """Seconds left, more than 0. Raises httpcore.ReadTimeout when there are none."""
        seconds = min(self.ends_at, self.body_due) - time.monotonic()
        if seconds <= 0:
            raise httpcore.ReadTimeout("out of time")
        return seconds


class GuardedNetwork(httpcore.NetworkBackend):
    """Connects to exactly the addresses it has checked, so that a name cannot point elsewhere a moment later.

    A host for which `is_listed` holds may have any address; every other must have a public one. TLS and the Host header
    keep the name. Resolving names takes as long as the system's resolver lets it, which no deadline can cut short.
    """

    def __init__(self, is_listed: Callable[[str], bool], deadline: Deadline) -> None:
        self._is_listed = is_listed
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("the name has no address")
        addresses = self._addresses(host, port)
        for tried, address in enumerate(addresses):
            share = self._deadline.remaining() / (len(addresses) - tried)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"the name does not resolve: {error.strerror}") from error
        except UnicodeError as error:
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{host!r} is not a host name") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if self._is_listed(host):
            return addresses
        public = [address for address in addresses if is_public(address)]
        if addresses and not public:
            raise ImageError(
                FailureReason.REFERENCE_REFUSED,
                # Which private one it has is not for everybody who may send an event.
                f"{host} has no public address; "
                "if this worker shall fetch from there, list the host in http.allowed_hosts",
            )
        return public


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._deadline.remaining())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._deadline.remaining())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.remaining())
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise ImageError(
                    FailureReason.REFERENCE_REFUSED,
                    f"the certificate of {server_hostname} is not trusted: {error.__cause__.verify_message}",
                ) from error
            raise
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
