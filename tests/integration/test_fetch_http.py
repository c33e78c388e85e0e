"""The HTTP fetcher against a server that misbehaves on request, in this process and on loopback."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpcore
import pytest
import trustme

from schemas import FailureReason, HttpReference
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch.base import FetchedImage
from worker.images.fetch.http import HttpFetcher
from worker.settings import HttpSettings

Answer = Callable[[socket.socket], None]

IMAGE = bytes(range(256)) * 40
PUBLIC, OTHER_PUBLIC = "93.184.215.14", "8.8.8.8"


def response(status: str = "200 OK", body: bytes = IMAGE, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class WebServer:
    """Answers each path with what a test has put there, and keeps what it was asked."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, bytes | Answer] = {"/a.png": response()}
        self.requests: list[str] = []
        self.connections = 0
        self.server_names: list[str | None] = []
        self._ssl_context = ssl_context
        if ssl_context:
            ssl_context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        with suppress(OSError):  # a test has closed it already
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._ssl_context:
                connection = self._ssl_context.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as lines:
                while request := self._read_request(lines):
                    self.requests.append(request)
                    answer = self.answers[request.split()[1].partition("?")[0]]
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                    else:
                        answer(connection)
                        return
        except OSError:
            return

    @staticmethod
    def _read_request(lines: Any) -> str:
        request = ""
        while (line := lines.readline()) not in (b"\r\n", b""):
            request += line.decode()
        return request


@pytest.fixture
def server() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def build() -> Iterator[Callable[..., HttpFetcher]]:
    """Builds fetchers that are closed when the test is over."""
    fetchers: list[HttpFetcher] = []

    def build(
        *hosts: str, redirects: int = 3, max_bytes: int = 20_000, timeout: float = 5.0, **options: Any
    ) -> HttpFetcher:
        settings = HttpSettings(allowed_hosts=hosts, max_redirects=redirects)
        fetchers.append(HttpFetcher(settings, max_bytes=max_bytes, timeout_seconds=timeout, **options))
        return fetchers[-1]

    yield build
    for fetcher in fetchers:
        fetcher.close()


def fetch(fetcher: HttpFetcher, url: str) -> FetchedImage:
    return fetcher.fetch(HttpReference(url=url))


def refusal(fetcher: HttpFetcher, url: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetch(fetcher, url)
    return caught.value


def transient(fetcher: HttpFetcher, url: str) -> str:
    with pytest.raises(TransientFetchError) as caught:
        fetch(fetcher, url)
    return str(caught.value)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses. No other name is known; numeric addresses stay what they are."""
    known: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        if host in known:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, args[0] if args else 0))
                for address in known[host]
            ]
        if re.fullmatch(r"[0-9.]+", host):
            return resolve(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def internet(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address leads to the server; the list tells which were connected to."""
    connected: list[str] = []
    connect = httpcore.SyncBackend.connect_tcp

    def connect_tcp(self: httpcore.SyncBackend, host: str, port: int, *args: Any) -> httpcore.NetworkStream:
        connected.append(host)
        return connect(self, "127.0.0.1", server.port, *args)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return connected


Build = Callable[..., HttpFetcher]


def test_an_image_of_a_listed_host_is_fetched(server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = response(ETag='"abc"')
    fetched = fetch(build("127.0.0.1"), server.url("/a.png?size=9"))
    assert (fetched.data, fetched.etag) == (IMAGE, '"abc"')
    assert server.requests[0].startswith("GET /a.png?size=9 HTTP/1.1\r\n")


@pytest.mark.parametrize("promised", ["0x8D", '"0x8D"'])
def test_an_image_is_asked_for_by_the_etag_that_was_promised(promised: str, server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = response(ETag='"0x8D"')
    fetched = build("127.0.0.1").fetch(HttpReference(url=server.url(), etag=promised))
    assert fetched.data == IMAGE
    assert 'If-Match: "0x8D"' in server.requests[0]


@pytest.mark.parametrize(
    "answer", [response(ETag='"0x9E"'), response(), response("412 Precondition Failed")], ids=["other", "none", "412"]
)
def test_another_image_than_the_one_that_was_promised_is_refused(
    answer: bytes, server: WebServer, build: Build
) -> None:
    server.answers["/a.png"] = answer
    with pytest.raises(ImageError) as caught:
        build("127.0.0.1").fetch(HttpReference(url=server.url(), etag="0x8D"))
    assert caught.value.reason is FailureReason.HASH_MISMATCH


def test_an_etag_that_cannot_be_sent_is_refused(server: WebServer, build: Build) -> None:
    with pytest.raises(ImageError) as caught:
        build("127.0.0.1").fetch(HttpReference(url=server.url(), etag="a\r\nHost: b"))
    assert caught.value.reason is FailureReason.REFERENCE_REFUSED
    assert server.requests == []


def test_a_loopback_address_is_refused_without_a_connection(server: WebServer, build: Build) -> None:
    error = refusal(build(), server.url())
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "http.allowed_hosts" in str(error)
    assert server.connections == 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::ffff:127.0.0.1", "224.0.0.1"]
)
def test_a_name_that_resolves_to_an_address_of_ours_is_refused(
    address: str, internet: list[str], names: dict[str, list[str]], build: Build
) -> None:
    names["innocent.example"] = [address]
    error = refusal(build(), "http://innocent.example/a.png")
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert address not in str(error), "who sends an event must not learn what our names stand for"
    assert internet == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "[::1]", "localhost", "0"])
def test_other_ways_to_write_loopback_are_refused(host: str, server: WebServer, build: Build) -> None:
    assert refusal(build(), server.url(host=host)).reason is FailureReason.REFERENCE_REFUSED
    assert server.connections == 0


def test_a_public_name_is_fetched_from_the_address_that_was_checked(
    internet: list[str], names: dict[str, list[str]], build: Build
) -> None:
    names["cdn.example"] = [PUBLIC]
    assert fetch(build(), "http://cdn.example/a.png").data == IMAGE
    assert internet == [PUBLIC]


def test_of_a_name_with_several_addresses_only_public_ones_are_connected_to(
    internet: list[str], names: dict[str, list[str]], build: Build
) -> None:
    names["mixed.example"] = ["127.0.0.1", OTHER_PUBLIC, "10.0.0.1"]
    assert fetch(build(), "http://mixed.example/a.png").data == IMAGE
    assert internet == [OTHER_PUBLIC]


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    server: WebServer, names: dict[str, list[str]], build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = httpcore.SyncBackend.connect_tcp

    def connect_tcp(
        self: httpcore.SyncBackend, host: str, port: int, timeout: float, *args: Any
    ) -> httpcore.NetworkStream:
        if host == PUBLIC:
            time.sleep(timeout)
            raise httpcore.ConnectTimeout("timed out")
        return connect(self, "127.0.0.1", server.port, timeout, *args)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    names["half.example"] = [PUBLIC, OTHER_PUBLIC]
    assert fetch(build(timeout=1.0), "http://half.example/a.png").data == IMAGE


def test_a_listed_name_may_have_a_private_address_and_is_asked_by_its_name(
    server: WebServer, names: dict[str, list[str]], build: Build
) -> None:
    names["images.store.internal"] = ["127.0.0.1"]
    assert fetch(build("*.store.internal"), server.url(host="images.store.internal")).data == IMAGE
    assert f"Host: images.store.internal:{server.port}\r\n" in server.requests[0]


def test_where_hosts_are_listed_every_other_is_refused(internet: list[str], build: Build) -> None:
    error = refusal(build("cdn.example.com"), "http://example.com/a.png")
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "example.com is not one of http.allowed_hosts" in str(error)
    assert internet == []


def test_tls_keeps_the_name_and_checks_the_certificate(names: dict[str, list[str]], build: Build) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.store.internal").configure_cert(context)
    server = WebServer(context)
    names["images.store.internal"] = names["other.store.internal"] = ["127.0.0.1"]
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    fetcher = build("*.store.internal", ssl_context=trusting)
    assert fetch(fetcher, server.url(host="images.store.internal", scheme="https")).data == IMAGE
    assert server.server_names == ["images.store.internal"]

    wrong_name = refusal(fetcher, server.url(host="other.store.internal", scheme="https"))
    stranger = refusal(build("*.store.internal"), server.url(host="images.store.internal", scheme="https"))
    for error in (wrong_name, stranger):
        assert error.reason is FailureReason.REFERENCE_REFUSED
        assert "certificate" in str(error)
    assert len(server.requests) == 1
    server.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["/a.png", "a.png", "http://127.0.0.1:{port}/a.png"])
def test_a_redirect_is_followed(status: str, location: str, server: WebServer, build: Build) -> None:
    server.answers["/old"] = response(status, b"gone", Location=location.format(port=server.port))
    assert fetch(build("127.0.0.1"), server.url("/old")).data == IMAGE


def test_redirects_are_limited(server: WebServer, build: Build) -> None:
    for step in range(4):
        server.answers[f"/{step}"] = response("302 Found", b"", Location=f"/{step + 1}")
    server.answers["/4"] = response()
    assert fetch(build("127.0.0.1", redirects=4), server.url("/0")).data == IMAGE
    error = refusal(build("127.0.0.1", redirects=3), server.url("/0"))
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "http.max_redirects = 3" in str(error)


def test_a_redirect_to_an_address_of_ours_is_refused(
    internet: list[str], server: WebServer, names: dict[str, list[str]], build: Build
) -> None:
    names["innocent.example"], names["rebound.example"] = [PUBLIC], ["169.254.169.254"]
    for location in ("http://127.0.0.1/admin", "http://rebound.example/latest/meta-data", "//10.0.0.1/"):
        server.answers["/a.png"] = response("302 Found", b"", Location=location)
        assert refusal(build(), "http://innocent.example/a.png").reason is FailureReason.REFERENCE_REFUSED
    assert internet == [PUBLIC] * 3


def test_a_redirect_to_a_host_that_is_not_listed_is_refused(server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = response("302 Found", b"", Location="http://evil.example/a.png")
    assert refusal(build("127.0.0.1"), server.url()).reason is FailureReason.REFERENCE_REFUSED


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/a.png", "gopher://127.0.0.1/", "http://user:pass@127.0.0.1/", "http://[/"],
)
def test_a_redirect_to_something_else_than_plain_http_is_refused(
    location: str, server: WebServer, build: Build
) -> None:
    server.answers["/a.png"] = response("302 Found", b"", Location=location)
    error = refusal(build("127.0.0.1"), server.url())
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "pass@" not in str(error)


def test_a_redirect_to_nowhere_is_not_found(server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = response("302 Found", b"")
    assert refusal(build("127.0.0.1"), server.url()).reason is FailureReason.IMAGE_NOT_FOUND


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", FailureReason.IMAGE_NOT_FOUND),
        ("410 Gone", FailureReason.IMAGE_NOT_FOUND),
        ("400 Bad Request", FailureReason.IMAGE_NOT_FOUND),
        ("204 No Content", FailureReason.IMAGE_NOT_FOUND),
        ("401 Unauthorized", FailureReason.ACCESS_DENIED),
        ("403 Forbidden", FailureReason.ACCESS_DENIED),
        ("451 Unavailable For Legal Reasons", FailureReason.ACCESS_DENIED),
    ],
)
def test_an_answer_that_will_stay_the_same_is_permanent(
    status: str, reason: FailureReason, server: WebServer, build: Build
) -> None:
    server.answers["/a.png"] = response(status, b"")
    error = refusal(build("127.0.0.1"), server.url())
    assert error.reason is reason
    assert status[:3] in str(error)


@pytest.mark.parametrize("status", ["408 T", "425 E", "429 T", "500 I", "502 B", "503 S", "504 G"])
def test_an_answer_that_may_change_is_transient(status: str, server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = response(status, b"try later")
    assert status[:3] in transient(build("127.0.0.1"), server.url())


def chunked(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(IMAGE), 1000):
        part = IMAGE[start : start + 1000]
        connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def until_closed(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + IMAGE)


def lying(connection: socket.socket) -> None:
    """Never ends, whatever it was asked for."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


@pytest.mark.parametrize("answer", [response(), chunked, until_closed], ids=["length", "chunked", "until closed"])
def test_the_byte_limit_holds_however_the_body_comes(answer: bytes | Answer, server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = answer
    assert fetch(build("127.0.0.1", max_bytes=len(IMAGE)), server.url()).data == IMAGE
    error = refusal(build("127.0.0.1", max_bytes=len(IMAGE) - 1), server.url())
    assert error.reason is FailureReason.IMAGE_TOO_LARGE
    assert f"images.max_bytes is {len(IMAGE) - 1}" in str(error)


def test_a_body_without_end_is_cut_off_at_the_limit(server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = lying
    assert refusal(build("127.0.0.1"), server.url()).reason is FailureReason.IMAGE_TOO_LARGE


def test_a_body_that_was_packed_unasked_is_refused(server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = response(Content_Encoding="gzip")
    error = refusal(build("127.0.0.1"), server.url())
    assert error.reason is FailureReason.UNSUPPORTED_FORMAT
    assert "gzip" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ninternal\x01 " + b"secret" * 10_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ninternal secret\r\n",
    ],
    ids=["header", "chunk"],
)
def test_no_message_repeats_what_a_server_that_is_none_of_images_says(
    answer: bytes, server: WebServer, build: Build
) -> None:
    server.answers["/a.png"] = answer
    with pytest.raises(TransientFetchError) as caught:
        build("127.0.0.1").fetch(HttpReference(url=server.url()))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [
        {"/a.png": response(Content_Encoding="gzip, " * 5000)},
        {"/a.png": response("302 Found", Location="/" + "b" * 50_000), "/" + "b" * 50_000: response("404 Not Found")},
        {"/a.png": response("302 Found", Location="ftp://example.com/" + "b" * 50_000)},
        {"/a.png": response("302 Found", Location=f"http://{'b.' * 25_000}/")},
    ],
    ids=["encoding", "address", "scheme", "host"],
)
def test_no_server_makes_a_message_long(answers: dict[str, bytes], server: WebServer, build: Build) -> None:
    server.answers.update(answers)
    assert len(str(refusal(build("127.0.0.1"), server.url()))) < 1000


def dripping(text: bytes) -> Answer:
    def drip(connection: socket.socket) -> None:
        for byte in text:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return drip


def silent(connection: socket.socket) -> None:
    time.sleep(20)


@pytest.mark.parametrize(
    "answer",
    [dripping(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100), dripping(response(body=b"x" * 500)), silent],
    ids=["headers drip", "everything drips", "silence"],
)
def test_a_slow_server_holds_a_thread_no_longer_than_the_time_limit(
    answer: Answer, server: WebServer, build: Build
) -> None:
    server.answers["/a.png"] = answer
    started = time.monotonic()
    assert "0.4 seconds" in transient(build("127.0.0.1", timeout=0.4), server.url())
    assert time.monotonic() - started < 5


def headers_then(body: Answer) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nx")
        body(connection)

    return answer


@pytest.mark.parametrize("body", [dripping(b"x" * 500), silent], ids=["drips", "stops"])
def test_a_body_that_comes_too_slowly_is_given_up_long_before_the_time_limit(
    body: Answer, server: WebServer, build: Build
) -> None:
    server.answers["/a.png"] = headers_then(body)
    fetcher = build("127.0.0.1", timeout=60.0, min_bytes_per_second=10_000.0)
    started = time.monotonic()
    assert "less than images.min_bytes_per_second = 10000" in transient(fetcher, server.url())
    assert time.monotonic() - started < 15
    server.answers["/a.png"] = response()
    assert fetch(fetcher, server.url()).data == IMAGE


def test_slow_redirects_share_one_time_limit(server: WebServer, build: Build) -> None:
    def slow(connection: socket.socket) -> None:
        time.sleep(0.25)
        connection.sendall(response("302 Found", b"", Location="/a.png"))

    server.answers["/a.png"] = slow
    started = time.monotonic()
    assert "0.4 seconds" in transient(build("127.0.0.1", redirects=20, timeout=0.4), server.url())
    assert time.monotonic() - started < 5


def cut_off(connection: socket.socket) -> None:
    connection.sendall(response()[:-100])


def nonsense(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.close()


@pytest.mark.parametrize("answer", [cut_off, nonsense, hangs_up])
def test_a_broken_connection_is_transient(answer: Answer, server: WebServer, build: Build) -> None:
    server.answers["/a.png"] = answer
    transient(build("127.0.0.1"), server.url())


def test_a_server_that_is_not_there_and_a_name_that_is_not_known_are_transient(
    server: WebServer, names: dict[str, list[str]], build: Build
) -> None:
    server.close()
    transient(build("127.0.0.1"), server.url())
    assert "does not resolve" in transient(build(), "http://nobody.example/a.png")


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1/a.png", "http://token@127.0.0.1/a.png"])
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str, build: Build) -> None:
    error = refusal(build("127.0.0.1"), url)
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "hunter2" not in str(error)
    assert "token" not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "http:///a.png",
        "http://[::1/a.png",
        "http://a..b/a.png",
        "http://x:99999999/",
        "http://x:0/",
        "https://\x00/a.png",
    ],
)
def test_an_address_that_is_none_is_refused(url: str, build: Build) -> None:
    assert refusal(build(), url).reason is FailureReason.REFERENCE_REFUSED


def test_no_message_repeats_the_signature_of_a_link(server: WebServer, build: Build) -> None:
    server.answers |= {
        "/missing": response("404 Not Found", b""),
        "/busy": response("503 Busy", b""),
        "/slow": silent,
        "/cut": cut_off,
        "/moved": response("302 Found", b"", Location="http://evil.example/?Signature=s3cret"),
        "/strange": response("302 Found", b"", Location="ftp://evil.example/?Signature=s3cret"),
        "/broken": response("302 Found", b"", Location="http://[/?Signature=s3cret"),
        "/loop": response("302 Found", b"", Location="/loop?Signature=s3cret"),
        "/big": response(body=b"x" * 30_000),
    }
    fetcher = build("127.0.0.1", timeout=0.4)
    for path in (*server.answers, "/a.png"):
        try:
            fetch(fetcher, server.url(f"{path}?Signature=s3cret&X-Amz-Credential=s3cret"))
        except (ImageError, TransientFetchError) as error:
            chain: BaseException | None = error
            while chain:
                assert "s3cret" not in str(chain)
                chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


def test_the_proxies_of_the_environment_are_not_used(
    server: WebServer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(build("127.0.0.1"), server.url()).data == IMAGE


def test_connections_are_kept_for_the_next_image(server: WebServer, build: Build) -> None:
    fetcher = build("127.0.0.1")
    for _ in range(5):
        assert fetch(fetcher, server.url()).data == IMAGE
    assert server.connections == 1


def test_many_threads_fetch_at_once(server: WebServer, build: Build) -> None:
    fetcher = build("127.0.0.1")
    with ThreadPoolExecutor(16) as pool:
        images = list(pool.map(lambda _: fetch(fetcher, server.url()).data, range(200)))
    assert images == [IMAGE] * 200
    assert server.connections <= 16
