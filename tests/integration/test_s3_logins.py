"""S3 by a web identity, as a pod's service account has it, and by a profile of single sign-on.

AWS's own token services cannot be had here. Small HTTP servers stand in for them; boto3 speaks to them as to the real
ones, and to a real S3 server with the credentials that they give.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ops.dev.servers import S3Server
from worker.s3_client import make_s3_client
from worker.settings import S3Settings

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE")


class TokenService:
    """Answers for STS and for single sign-on, and remembers what it was asked."""

    def __init__(self, access_key: str, secret_key: str) -> None:
        self.life = timedelta(hours=1)
        self.asked: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                service.asked.append({name: values[0] for name, values in form.items()})
                expires = (datetime.now(UTC) + service.life).strftime("%Y-%m-%dT%H:%M:%SZ")
                self._answer(
                    "text/xml",
                    '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                    f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{access_key}</AccessKeyId>"
                    f"<SecretAccessKey>{secret_key}</SecretAccessKey><SessionToken></SessionToken>"
                    f"<Expiration>{expires}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                    "</AssumeRoleWithWebIdentityResponse>",
                )

            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                service.asked.append(asked | {"token": self.headers["x-amz-sso_bearer_token"]})
                given = {"accessKeyId": "of-sso", "secretAccessKey": "s", "sessionToken": "t"}
                expires = int((time.time() + 3600) * 1000)
                self._answer("application/json", json.dumps({"roleCredentials": given | {"expiration": expires}}))

            def _answer(self, kind: str, body: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["TokenService"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@pytest.fixture
def tokens(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    for name in AWS:
        monkeypatch.delenv(name, raising=False)
    with TokenService(s3_server.access_key, s3_server.secret_key).running() as service:
        yield service


def test_a_web_identity_reads_the_bucket_and_a_token_that_was_exchanged_is_used(
    s3_server: S3Server, bucket: str, tokens: TokenService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="a.png", Body=b"bytes")
    file = tmp_path / "token"
    file.write_text("first-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sluice")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", tokens.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    tokens.life = timedelta(minutes=5)  # so near its end that the next request renews it
    settings = S3Settings(endpoint_url=s3_server.endpoint, region=s3_server.region, addressing_style="path")
    client = make_s3_client(settings, connect_seconds=5, read_seconds=5, attempts=1)

    assert client.get_object(Bucket=bucket, Key="a.png")["Body"].read() == b"bytes"
    assert tokens.asked[0]["Action"] == "AssumeRoleWithWebIdentity"
    assert tokens.asked[0]["RoleArn"] == "arn:aws:iam::123456789012:role/sluice"
    assert tokens.asked[0]["WebIdentityToken"] == "first-token"

    file.write_text("second-token")
    assert client.get_object(Bucket=bucket, Key="a.png")["Body"].read() == b"bytes"
    assert tokens.asked[-1]["WebIdentityToken"] == "second-token"
    client.close()


_SIGN = """
from worker.s3_client import make_s3_client
from worker.settings import S3Settings
client = make_s3_client(S3Settings(profile="media"), connect_seconds=5, read_seconds=5, attempts=1)
print(client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"}))
"""


def test_a_profile_of_single_sign_on_gives_the_credentials(tokens: TokenService, tmp_path: Path) -> None:
    """In a process of its own: botocore looks for the home directory when it is imported."""
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    (tmp_path / ".aws" / "config").write_text(
        "[profile media]\nregion = us-east-1\nsso_session = house\nsso_account_id = 123456789012\n"
        "sso_role_name = reader\n[sso-session house]\nsso_region = us-east-1\nsso_start_url = https://sso.example\n"
    )
    expires = (datetime.now(UTC) + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = {"startUrl": "https://sso.example", "region": "us-east-1", "accessToken": "bearer", "expiresAt": expires}
    # named for the session, as `aws sso login` does
    name = hashlib.sha1(b"house", usedforsecurity=False).hexdigest()
    (cache / f"{name}.json").write_text(json.dumps(token))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables |= {"HOME": str(tmp_path), "AWS_ENDPOINT_URL_SSO": tokens.url, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _SIGN], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    signed = parse_qs(urlsplit(done.stdout.strip()).query)
    assert signed["X-Amz-Credential"][0].startswith("of-sso/")
    assert signed["X-Amz-Security-Token"] == ["t"]
    assert tokens.asked == [{"role_name": "reader", "account_id": "123456789012", "token": "bearer"}]
