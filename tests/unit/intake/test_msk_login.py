"""The login for AWS MSK, compared with botocore's own signature: no such broker can be had here."""

import json
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.auth
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from kafka.errors import SaslAuthenticationFailedError
from kafka.net.sasl import get_sasl_mechanism

from worker.intake.kafka_connection import connection_options
from worker.settings import KafkaSettings

HOST = "b-1.cluster.abc.c2.kafka.eu-west-1.amazonaws.com"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # AWS's documentation's


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def _login() -> Any:
    settings = KafkaSettings.model_validate({"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"})
    return get_sasl_mechanism("AWS_MSK_IAM")(**connection_options(settings), host=HOST)


@pytest.mark.parametrize("token", [None, "session/token+of=a role"])
def test_the_signature_is_botocores(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    if token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    sent = json.loads(_login().auth_bytes())

    moment = datetime.strptime(sent["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
    request = AWSRequest("GET", f"https://{HOST}/", params={"Action": "kafka-cluster:Connect"})
    credentials = Credentials("AKIDEXAMPLE", SECRET, token)
    SigV4QueryAuth(credentials, "kafka-cluster", "eu-west-1", expires=900).add_auth(request)
    expected = {name.lower(): value for name, value in parse_qsl(urlsplit(request.url).query)}

    assert sent["host"] == HOST
    assert {name: sent[name] for name in expected} == expected


def test_without_credentials_or_region_the_login_fails_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SaslAuthenticationFailedError, match="AWS_MSK_IAM has no credentials"):
        _login().auth_bytes()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SaslAuthenticationFailedError, match="has no region"):
        _login().auth_bytes()
