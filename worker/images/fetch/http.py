"""Images on web servers."""

import ssl
from functools import partial
from http import HTTPStatus
from math import inf

import httpcore
import httpx

from schemas import FailureReason, HttpReference
from schemas.explain import excerpt
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch.addresses import is_listed
from worker.images.fetch.base import FetchedImage, ImageBody, bare_etag, check_etag
from worker.images.fetch.network import Deadline, GuardedNetwork
from worker.images.fetch.pace import BodyPace
from worker.images.memory import MemoryBudget
from worker.settings import HttpSettings

_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429}
_DENIED = {401, 403, 407, 451}
_LONGEST_HOST = 254
"""RFC 1035, 2.3.4, and the dot at the end."""
_SHOWN = 500
"""Characters at most of what a server chooses, a redirect's address, that a message repeats."""
_HEADERS = ((b"User-Agent", b"sluice"), (b"Accept", b"image/*"), (b"Accept-Encoding", b"identity"))


class HttpFetcher:
    """Fetches with GET from the hosts the settings allow, following a few redirects, each checked like the first.

    It stands on httpcore, the engine of httpx, because there the sockets can be replaced: see GuardedNetwork. Proxies
    and credentials of the environment are not used. `ssl_context` decides which certificates are trusted; absent: those
    of the system and of certifi.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        max_bytes: int,
        memory: MemoryBudget | None = None,
        timeout_seconds: float,
        min_bytes_per_second: float = 1.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._memory = memory or MemoryBudget(max_bytes)
        self._timeout_seconds = timeout_seconds
        self._min_rate = min_bytes_per_second
        self._deadline = Deadline()
        self._is_listed = partial(is_listed, allowed_hosts=settings.allowed_hosts)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or httpcore.default_ssl_context(),
            max_connections=None,  # the threads that fetch are the bound
            max_keepalive_connections=32,
            keepalive_expiry=15.0,
            network_backend=GuardedNetwork(self._is_listed, self._deadline),
        )

    def fetch(self, reference: HttpReference) -> FetchedImage:
        self._deadline.start(self._timeout_seconds)
        url = _parse(reference.url)
        for _ in range(self._settings.max_redirects + 1):
            self._check(url)
            answer = self._get(url, reference.etag)
            if isinstance(answer, FetchedImage):
                return answer
            url = answer
        raise ImageError(
            FailureReason.REFERENCE_REFUSED,
            f"more than http.max_redirects = {self._settings.max_redirects} redirects, the last to {_place(url)}",
        )

    def close(self) -> None:
        self._pool.close()

    def _check(self, url: httpx.URL) -> None:
        host, port = url.raw_host.decode("ascii"), 80 if url.port is None else url.port
        if url.scheme not in ("http", "https") or not host or not 0 < port < 65536:
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{_place(url)} is not an http or https address")
        if len(host) > _LONGEST_HOST:
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{_place(url)} has a host that is too long for a name")
        if url.userinfo:
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{_place(url)} carries credentials before its host")
        if self._settings.allowed_hosts and not self._is_listed(host):
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{host} is not one of http.allowed_hosts")

    def _get(self, url: httpx.URL, etag: str | None) -> FetchedImage | httpx.URL:
        """The image, or where the server says it is."""
        place = _place(url)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        sent = [*_HEADERS, (b"Host", url.netloc), *_condition(etag, place)]
        try:
            with self._pool.stream("GET", target, headers=sent) as response:
                headers = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
                if response.status in _REDIRECTS:
                    if not headers.get("location"):
                        raise ImageError(FailureReason.IMAGE_NOT_FOUND, f"{place} redirects without saying where to")
                    return _parse(headers["location"], base=url)
                _check_status(response.status, place)
                check_etag(etag, headers.get("etag"), place)
                encoding = headers.get("content-encoding", "identity").lower()
                if encoding != "identity":
                    raise ImageError(
                        FailureReason.UNSUPPORTED_FORMAT,
                        f"{place} was sent packed ({excerpt(encoding)}), which was not asked for",
                    )
                return self._read(response, headers, place)
        except httpcore.TimeoutException as error:
            raise TransientFetchError(f"{place} took more than {self._timeout_seconds:g} seconds") from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol) as error:
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{place} cannot be asked for: {error}") from error
        except httpcore.ProtocolError as error:
            # What the parser could not read it repeats, and a server that is none of images may have said anything.
            reason = str(error).partition(": bytearray(")[0][:_SHOWN]
            raise TransientFetchError(f"{place}: {reason}") from error
        except httpcore.NetworkError as error:
            raise TransientFetchError(f"{place}: {error or 'the connection broke'}") from error

    def _read(self, response: httpcore.Response, headers: dict[str, str], place: str) -> FetchedImage:
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else None
        pace = BodyPace(place, self._min_rate)
        with ImageBody(self._memory, self._max_bytes, place, size) as body:
            try:
                waited = self._go_on(body, pace, 0.0)
                for chunk in response.iter_stream():
                    body.add(chunk)
                    waited = self._go_on(body, pace, waited)
            except httpcore.TimeoutException:
                pace.check(len(body), body.waited_seconds)
                raise
            finally:
                self._deadline.body_due = inf
            return body.image(headers.get("etag"))

    def _go_on(self, body: ImageBody, pace: BodyPace, waited_seconds: float) -> float:
        """Puts the deadlines off: by what the body has waited for memory since then, and for what has come of it."""
        self._deadline.ends_at += body.waited_seconds - waited_seconds
        self._deadline.body_due = pace.due(len(body), body.waited_seconds)
        return body.waited_seconds


def _parse(text: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return base.join(text) if base else httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        # the parser's message repeats parts of the address, which may be secret
        whose = f"the redirect of {_place(base)}" if base else "the url"
        raise ImageError(FailureReason.REFERENCE_REFUSED, f"{whose} is not a valid address") from None


def _place(url: httpx.URL) -> str:
    """The address for people: without user, password, query (signed links) and fragment, and not without end."""
    place = str(url.copy_with(userinfo=b"", query=None, fragment=None))
    return place if len(place) <= _SHOWN else f"{place[:_SHOWN]}…"


def _condition(etag: str | None, place: str) -> list[tuple[bytes, bytes]]:
    if etag is None:
        return []
    if not (etag.isascii() and etag.isprintable()):
        raise ImageError(FailureReason.REFERENCE_REFUSED, f"{place} cannot be asked for: its etag has odd characters")
    return [(b"If-Match", f'"{bare_etag(etag)}"'.encode("ascii"))]


def _check_status(status: int, place: str) -> None:
    if status == HTTPStatus.OK:
        return
    if status == HTTPStatus.PRECONDITION_FAILED:
        message = f"{place} answered {status}: the image is no longer what the event names"
        raise ImageError(FailureReason.HASH_MISMATCH, message)
    if status >= 500 or status in _TRANSIENT:
        raise TransientFetchError(f"{place} answered {status}")
    reason = FailureReason.ACCESS_DENIED if status in _DENIED else FailureReason.IMAGE_NOT_FOUND
    raise ImageError(reason, f"{place} answered {status}")
