"""The S3 fetcher against a real store, and against servers that fail as stores do."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ops.dev.servers import S3Server
from schemas import FailureReason, S3Reference
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch.s3 import S3Fetcher
from worker.settings import S3Settings

IMAGE = bytes(range(256)) * 1000

Build = Callable[..., S3Fetcher]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Builds fetchers that are closed when the test is over; credentials come by boto3's own chain."""
    fetchers: list[S3Fetcher] = []

    def build(
        endpoint: str | None,
        key: str = "anyone",
        secret: str = "secret",
        *,
        max_bytes: int = 1_000_000,
        timeout: float = 10.0,
        min_rate: float = 1.0,
        **options: Any,
    ) -> S3Fetcher:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        settings = S3Settings(endpoint_url=endpoint, region="us-east-1", **options)
        fetchers.append(
            S3Fetcher(
                settings,
                max_bytes=max_bytes,
                timeout_seconds=timeout,
                max_connections=8,
                min_bytes_per_second=min_rate,
            )
        )
        return fetchers[-1]

    yield build
    for fetcher in fetchers:
        fetcher.close()


def refusal(fetcher: S3Fetcher, reference: S3Reference) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetcher.fetch(reference)
    return caught.value


def transient(fetcher: S3Fetcher, reference: S3Reference) -> str:
    with pytest.raises(TransientFetchError) as caught:
        fetcher.fetch(reference)
    return str(caught.value)


class TestStore:
    """A real S3 server."""

    @pytest.fixture
    def fetcher(self, s3_server: S3Server, build: Build) -> S3Fetcher:
        return build(s3_server.endpoint, s3_server.access_key, s3_server.secret_key, addressing_style="path")

    @pytest.fixture
    def put(self, s3_server: S3Server, bucket: str) -> Iterator[Callable[..., dict[str, Any]]]:
        client = s3_server.client()
        keys: set[str] = set()

        def put(key: str, body: bytes = IMAGE) -> dict[str, Any]:
            keys.add(key)
            answer: dict[str, Any] = client.put_object(Bucket=bucket, Key=key, Body=body)
            return answer

        yield put
        listed = client.list_object_versions(Bucket=bucket)
        for version in listed.get("Versions", []) + listed.get("DeleteMarkers", []):
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        for key in keys:
            client.delete_object(Bucket=bucket, Key=key)

    @pytest.mark.parametrize("key", ["a.jpg", "folder/b c+d.jpg", "ü/雪 & ?.png", "a//b", "50%.jpg"])
    def test_an_object_comes_back_with_its_etag(
        self, key: str, fetcher: S3Fetcher, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        etag = put(key)["ETag"].strip('"')
        fetched = fetcher.fetch(S3Reference(bucket=bucket, key=key))
        assert (fetched.data, fetched.etag) == (IMAGE, etag)

    def test_an_empty_object_is_empty(
        self, fetcher: S3Fetcher, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        put("empty", b"")
        assert fetcher.fetch(S3Reference(bucket=bucket, key="empty")).data == b""

    @pytest.mark.parametrize("quote", ["", '"'])
    def test_an_object_with_the_etag_that_was_promised_is_fetched(
        self, quote: str, fetcher: S3Fetcher, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        etag = put("a.jpg")["ETag"].strip('"')
        assert fetcher.fetch(S3Reference(bucket=bucket, key="a.jpg", etag=f"{quote}{etag}{quote}")).data == IMAGE

    def test_an_object_that_has_changed_since_the_event_is_refused(
        self, fetcher: S3Fetcher, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        etag = put("a.jpg")["ETag"]
        put("a.jpg", b"another image")
        error = refusal(fetcher, S3Reference(bucket=bucket, key="a.jpg", etag=etag))
        assert error.reason is FailureReason.HASH_MISMATCH

    def test_an_older_version_can_be_fetched(
        self, s3_server: S3Server, fetcher: S3Fetcher, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        s3_server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        old = put("a.jpg", b"old")["VersionId"]
        new = put("a.jpg", b"new")["VersionId"]
        for version, data in ((old, b"old"), (new, b"new")):
            fetched = fetcher.fetch(S3Reference(bucket=bucket, key="a.jpg", version_id=version))
            assert (fetched.data, fetched.version_id) == (data, version)
        assert fetcher.fetch(S3Reference(bucket=bucket, key="a.jpg")).data == b"new"
        gone = S3Reference(bucket=bucket, key="a.jpg", version_id="0" * len(old))
        assert refusal(fetcher, gone).reason is FailureReason.IMAGE_NOT_FOUND

    def test_a_missing_key_and_a_missing_bucket_are_not_found(self, fetcher: S3Fetcher, bucket: str) -> None:
        error = refusal(fetcher, S3Reference(bucket=bucket, key="missing.jpg"))
        assert error.reason is FailureReason.IMAGE_NOT_FOUND
        assert f"s3://{bucket}/missing.jpg" in str(error)
        assert refusal(fetcher, S3Reference(bucket=f"{bucket}-no", key="a")).reason is FailureReason.IMAGE_NOT_FOUND

    def test_an_object_of_more_bytes_than_allowed_is_too_large(
        self, s3_server: S3Server, build: Build, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        put("a.jpg")
        credentials = (s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
        exact, short = (build(*credentials, max_bytes=len(IMAGE) - less) for less in (0, 1))
        assert exact.fetch(S3Reference(bucket=bucket, key="a.jpg")).data == IMAGE
        error = refusal(short, S3Reference(bucket=bucket, key="a.jpg"))
        assert error.reason is FailureReason.IMAGE_TOO_LARGE
        assert str(len(IMAGE)) in str(error)

    def test_wrong_credentials_are_the_workers_fault_and_transient(
        self, s3_server: S3Server, build: Build, bucket: str
    ) -> None:
        fetcher = build(s3_server.endpoint, s3_server.access_key, "wrong")
        said = transient(fetcher, S3Reference(bucket=bucket, key="a.jpg"))
        assert s3_server.secret_key not in said

    def test_many_threads_fetch_at_once(
        self, fetcher: S3Fetcher, bucket: str, put: Callable[..., dict[str, Any]]
    ) -> None:
        for number in range(8):
            put(f"{number}.jpg", bytes([number]) * 50_000)
        with ThreadPoolExecutor(16) as pool:
            images = pool.map(lambda n: fetcher.fetch(S3Reference(bucket=bucket, key=f"{n % 8}.jpg")).data, range(160))
            assert [data[:1] for data in images] == [bytes([number % 8]) for number in range(160)]


Answer = Callable[[BaseHTTPRequestHandler], None]


class Stub:
    """Answers GetObject with what a test has put there; what no real server can be made to do on request."""

    def __init__(self) -> None:
        self.answer: Answer = error_answer(500, "InternalError")
        self.requests: list[dict[str, str]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.requests.append(dict(self.headers))
                stub.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def error_answer(status: int, code: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said the store</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def object_answer(body: bytes, announced: int | None = None, etag: str = '"e1"', pause: float = 0.0) -> Answer:
    """The object; `announced` for a wrong length, `pause` to send it byte by byte."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body) if announced is None else announced))
        handler.end_headers()
        for start in range(0, len(body), 1 if pause else len(body)):
            handler.wfile.write(body[start : start + 1] if pause else body)
            time.sleep(pause)
        handler.close_connection = True

    return answer


def endless_answer(handler: BaseHTTPRequestHandler) -> None:
    """A body without a length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(20)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


REFERENCE = S3Reference(bucket="images", key="folder/a.jpg")


class TestFaults:
    """What goes wrong with stores, from a stub on loopback."""

    @pytest.fixture
    def stub(self) -> Iterator[Stub]:
        stub = Stub()
        yield stub
        stub.close()

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (500, "InternalError"),
            (503, "SlowDown"),
            (503, "ServiceUnavailable"),
            (429, "TooManyRequests"),
            (400, "RequestTimeout"),
            (400, "ExpiredToken"),
            (403, "RequestTimeTooSkewed"),
            (403, "SignatureDoesNotMatch"),
            (403, "InvalidAccessKeyId"),
            (400, "KMS.ThrottlingException"),
        ],
    )
    def test_what_may_pass_is_transient_and_asked_once(self, status: int, code: str, stub: Stub, build: Build) -> None:
        stub.answer = error_answer(status, code)
        said = transient(build(stub.endpoint), REFERENCE)
        assert "s3://images/folder/a.jpg" in said
        assert code in said
        assert len(stub.requests) == 1

    @pytest.mark.parametrize(
        ("status", "code", "reason"),
        [
            (404, "NoSuchKey", FailureReason.IMAGE_NOT_FOUND),
            (404, "NoSuchVersion", FailureReason.IMAGE_NOT_FOUND),
            (404, "NoSuchBucket", FailureReason.IMAGE_NOT_FOUND),
            (405, "MethodNotAllowed", FailureReason.IMAGE_NOT_FOUND),
            (403, "AccessDenied", FailureReason.ACCESS_DENIED),
            (403, "InvalidObjectState", FailureReason.ACCESS_DENIED),
            # of an object whose key was switched off, which must not look like a store that is down
            (400, "KMS.DisabledException", FailureReason.ACCESS_DENIED),
            (400, "KMS.NotFoundException", FailureReason.ACCESS_DENIED),
            (412, "PreconditionFailed", FailureReason.HASH_MISMATCH),
            (400, "InvalidArgument", FailureReason.REFERENCE_REFUSED),
        ],
    )
    def test_what_will_stay_is_permanent(
        self, status: int, code: str, reason: FailureReason, stub: Stub, build: Build
    ) -> None:
        stub.answer = error_answer(status, code)
        error = refusal(build(stub.endpoint), REFERENCE)
        assert error.reason is reason
        assert "s3://images/folder/a.jpg" in str(error)
        assert code in str(error)

    def test_a_store_that_ignores_if_match_is_checked_all_the_same(self, stub: Stub, build: Build) -> None:
        stub.answer = object_answer(IMAGE, etag='"e2"')
        reference = S3Reference(bucket="images", key="a.jpg", etag="e1")
        error = refusal(build(stub.endpoint), reference)
        assert error.reason is FailureReason.HASH_MISMATCH
        assert stub.requests[0]["If-Match"] == '"e1"'

    def test_a_body_cut_short_is_transient(self, stub: Stub, build: Build) -> None:
        stub.answer = object_answer(IMAGE, announced=len(IMAGE) + 100)
        assert f"broke off after {len(IMAGE)} of {len(IMAGE) + 100} bytes" in transient(build(stub.endpoint), REFERENCE)

    def test_a_body_of_unknown_length_is_cut_off_at_the_limit(self, stub: Stub, build: Build) -> None:
        stub.answer = endless_answer
        assert refusal(build(stub.endpoint), REFERENCE).reason is FailureReason.IMAGE_TOO_LARGE

    @pytest.mark.parametrize("answer", [silence, object_answer(b"x" * 1000, pause=0.05)], ids=["silence", "drip"])
    def test_a_slow_store_does_not_hold_the_thread(self, answer: Answer, stub: Stub, build: Build) -> None:
        stub.answer = answer
        started = time.monotonic()
        transient(build(stub.endpoint, timeout=0.5), REFERENCE)
        assert time.monotonic() - started < 5

    def test_a_body_that_drips_is_given_up_long_before_the_time_limit(self, stub: Stub, build: Build) -> None:
        stub.answer = object_answer(b"x" * 1000, pause=0.05)
        started = time.monotonic()
        said = transient(build(stub.endpoint, timeout=60.0, min_rate=10_000.0), REFERENCE)
        assert "less than images.min_bytes_per_second = 10000" in said
        assert time.monotonic() - started < 15

    def test_a_store_that_hangs_up_or_is_not_there_is_transient(self, stub: Stub, build: Build) -> None:
        stub.answer = hang_up
        fetcher = build(stub.endpoint)
        transient(fetcher, REFERENCE)
        stub.close()
        transient(fetcher, REFERENCE)

    def test_a_bucket_that_botocore_cannot_place_is_refused(self, build: Build) -> None:
        error = refusal(build(None), S3Reference(bucket="b--x-s3", key="a.jpg"))
        assert error.reason is FailureReason.REFERENCE_REFUSED

    def test_without_credentials_the_fault_is_the_workers_and_transient(
        self, stub: Stub, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetcher = build(stub.endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        settings = S3Settings(endpoint_url=stub.endpoint, region="us-east-1")
        fetcher = S3Fetcher(settings, max_bytes=10, timeout_seconds=1, max_connections=1)
        assert "credentials" in transient(fetcher, REFERENCE)

    def test_an_endpoint_that_is_no_address_is_an_error_at_set_up(self, build: Build) -> None:
        with pytest.raises(ValueError, match="endpoint"):
            build("not a url")
