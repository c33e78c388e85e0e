"""The client of S3: what keeps it from being made is told as a fault of the settings."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import botocore.exceptions
import pytest
import trustme

from worker.s3_client import make_s3_client
from worker.settings import S3Settings, SettingsError


def test_a_profile_that_does_not_exist_is_told_as_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(SettingsError, match=r"no-such-profile.*could not be found"):
        make_s3_client(S3Settings(region="us-east-1"), connect_seconds=1, read_seconds=1, attempts=1)


def test_an_address_that_is_none_is_told_as_a_fault_of_the_settings() -> None:
    settings = S3Settings(endpoint_url="http://[::1", region="us-east-1")
    with pytest.raises(SettingsError, match=r"no client of S3 can be made \(s3\."):
        make_s3_client(settings, connect_seconds=1, read_seconds=1, attempts=1)


def test_patience_is_the_callers_and_all_else_is_the_same_for_all() -> None:
    settings = S3Settings(endpoint_url="http://127.0.0.1:9", region="eu-west-1", addressing_style="path")
    client = make_s3_client(settings, connect_seconds=2, read_seconds=7, attempts=1, max_connections=3)
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (2, 7, 3)
    assert config.retries["total_max_attempts"] == 1
    assert (client.meta.endpoint_url, client.meta.region_name) == ("http://127.0.0.1:9", "eu-west-1")
    assert config.s3["addressing_style"] == "path"


class _Buckets(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_store_whose_certificate_an_authority_of_ones_own_has_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    server = HTTPServer(("127.0.0.1", 0), _Buckets)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        settings = S3Settings(endpoint_url=f"https://127.0.0.1:{server.server_port}", region="r", ca_file=file)
        client = make_s3_client(settings, connect_seconds=5, read_seconds=5, attempts=1)
        assert client.list_buckets()["Buckets"] == []
        untrusting = settings.model_copy(update={"ca_file": None})
        with pytest.raises(botocore.exceptions.SSLError):
            make_s3_client(untrusting, connect_seconds=5, read_seconds=5, attempts=1).list_buckets()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_profile_that_there_is_not_is_named() -> None:
    with pytest.raises(SettingsError, match="no-such-profile"):
        make_s3_client(S3Settings(profile="no-such-profile"), connect_seconds=1, read_seconds=1, attempts=1)


def test_a_profile_gives_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text("[desk]\naws_access_key_id = of-the-profile\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    client = make_s3_client(S3Settings(profile="desk", region="r"), connect_seconds=1, read_seconds=1, attempts=1)
    assert "of-the-profile" in client.generate_presigned_url("list_buckets")
