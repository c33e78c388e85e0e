"""Every way to log in to Kafka that a broker can be had for, and secrets that are rotated."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from confluent_kafka import Consumer
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaProducer
from kafka.errors import KafkaError

from ops.dev.secure_kafka import PLAIN_PASSWORD, PLAIN_USER, SecureKafkaServer
from tests.integration.secure_stream import SecureStream
from worker.intake.kafka_client import open_kafka_log
from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_probe import admin_client
from worker.intake.librdkafka_options import consumer_options
from worker.intake.log import CommitRefused, LogRefused, Output, Partition, Record
from worker.settings import KafkaSettings, TelemetrySettings


def _may_read(settings: KafkaSettings, topic: str) -> bool:
    """By the client that the settings name."""
    if settings.client == "librdkafka":
        consumer = Consumer(consumer_options(settings))
        try:
            return consumer.list_topics(topic, timeout=20).topics[topic].error is None
        finally:
            consumer.close()
    with admin_client(settings) as admin:
        (described,) = admin.describe_topics([topic])
    return "READ" in (described["authorized_operations"] or ())


both_clients = pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])


def _cut_connections(admin: Any) -> None:
    for connection in list(admin._manager._conns.values()):
        admin._manager.call_soon(connection.close)


def _operations(admin: Any, topic: str) -> list[str]:
    """What the client may do with the topic, once it is connected again."""
    deadline = time.monotonic() + 20
    while True:
        try:
            (described,) = admin.describe_topics([topic])
            return list(described["authorized_operations"] or ())
        except KafkaError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
def stream(secure_kafka: SecureKafkaServer) -> SecureStream:
    return SecureStream(secure_kafka)


@pytest.fixture
def topic(stream: SecureStream) -> str:
    return stream.topics["images"]


def _settings(kafka: SecureKafkaServer, **more: object) -> KafkaSettings:
    base = {"bootstrap_servers": kafka.sasl_servers, "security_protocol": "SASL_SSL", "ssl_cafile": str(kafka.ca)}
    return KafkaSettings.model_validate(base | more)


@both_clients
def test_plain(secure_kafka: SecureKafkaServer, topic: str, client: str) -> None:
    secure_kafka.allow(PLAIN_USER, "topic", topic, ["read"])
    login = {"sasl_mechanism": "PLAIN", "sasl_username": PLAIN_USER, "sasl_password": PLAIN_PASSWORD}
    assert _may_read(_settings(secure_kafka, client=client, **login), topic)


def test_a_password_of_a_file_is_read_at_each_login(
    secure_kafka: SecureKafkaServer, stream: SecureStream, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{stream.password}\n")
    login = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": stream.user, "sasl_password_file": str(file)}
    settings = _settings(secure_kafka, **login)
    with admin_client(settings) as admin:
        assert admin.describe_topics([topic])
        secure_kafka.add_user(stream.user, "another password")
        file.write_text("another password\n")
        _cut_connections(admin)
        # the same client logs in again, with the password that the file has now
        assert "READ" in _operations(admin, topic)


class _Tokens(BaseHTTPRequestHandler):
    """A token endpoint. Its tokens carry no signature, which the test broker takes."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        given = self.headers.get("Authorization", "")
        type(self).asked.append({"form": form, "authorization": given})
        allowed = given == "Basic " + base64.b64encode(b"client:secret").decode()
        claims = {"sub": "oauth-user", "iat": int(time.time()), "exp": int(time.time()) + 3600}
        token = f"{_part({'alg': 'none'})}.{_part(claims)}."
        body = json.dumps(
            {"access_token": token, "expires_in": 3600, "token_type": "Bearer"} if allowed else {}
        ).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def _part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


@pytest.fixture
def token_url() -> Iterator[str]:
    _Tokens.asked = []
    server = HTTPServer(("127.0.0.1", 0), _Tokens)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()
    thread.join()


@both_clients
def test_tokens_of_an_openid_provider(
    secure_kafka: SecureKafkaServer, topic: str, token_url: str, tmp_path: Path, client: str
) -> None:
    secure_kafka.allow("oauth-user", "topic", topic, ["read"])
    secret = tmp_path / "secret"
    secret.write_text("secret")
    oauth = {"token_url": token_url, "client_id": "client", "client_secret_file": str(secret), "scope": "kafka"}
    settings = _settings(secure_kafka, client=client, sasl_mechanism="OAUTHBEARER", sasl_oauth=oauth)
    assert _may_read(settings, topic)
    assert _Tokens.asked[0]["form"] == {"grant_type": ["client_credentials"], "scope": ["kafka"]}

    wrong = oauth | {"client_secret_file": None, "client_secret": "wrong"}
    with pytest.raises(LogRefused, match="gives no token: status 401") as refused:
        _may_read(_settings(secure_kafka, sasl_mechanism="OAUTHBEARER", sasl_oauth=wrong), topic)
    assert "wrong" not in str(refused.value)


@both_clients
def test_a_clients_certificate_whose_key_has_a_password(
    secure_kafka: SecureKafkaServer, topic: str, tmp_path: Path, client: str
) -> None:
    issued = secure_kafka.authority.issue_cert("client.example", common_name="mtls-user")
    secure_kafka.allow("mtls-user", "topic", topic, ["read"])
    certificate, key, password = tmp_path / "client.pem", tmp_path / "client.key", tmp_path / "key-password"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    plain = load_pem_private_key(issued.private_key_pem.bytes(), None)
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"key password")))
    password.write_text("key password\n")
    settings = {
        "bootstrap_servers": secure_kafka.tls_servers,
        "security_protocol": "SSL",
        "ssl_cafile": str(secure_kafka.ca),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
        "ssl_key_password_file": str(password),
    }
    assert _may_read(KafkaSettings.model_validate(settings | {"client": client}), topic)
    password.write_text("wrong\n")
    with pytest.raises(LogRefused, match="certificates for Kafka cannot be used"):
        _may_read(KafkaSettings.model_validate(settings), topic)


def test_a_clients_certificate_that_was_renewed_is_used_at_the_next_connection(
    secure_kafka: SecureKafkaServer, topic: str, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"

    def renew(user: str) -> None:
        issued = secure_kafka.authority.issue_cert("client.example", common_name=user)
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)

    secure_kafka.allow("renewed-user", "topic", topic, ["read", "describe"])
    secure_kafka.allow("first-user", "topic", topic, ["describe"])
    settings = {
        "bootstrap_servers": secure_kafka.tls_servers,
        "security_protocol": "SSL",
        "ssl_cafile": str(secure_kafka.ca),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
    }
    renew("first-user")
    with admin_client(KafkaSettings.model_validate(settings)) as admin:
        assert "READ" not in _operations(admin, topic)
        renew("renewed-user")
        _cut_connections(admin)
        assert "READ" in _operations(admin, topic)


def test_a_secret_whose_file_is_missing_is_named(secure_kafka: SecureKafkaServer, tmp_path: Path) -> None:
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "user", "sasl_password_file": str(tmp_path / "missing")}
    with pytest.raises(LogRefused, match=r"missing: the secret cannot be read"):
        _may_read(_settings(secure_kafka, **login), "topic")


@both_clients
def test_a_member_that_may_not_write_a_topic_is_told_which_and_goes_on_once_it_may(
    secure_kafka: SecureKafkaServer, stream: SecureStream, client: str
) -> None:
    topics = stream.topics
    log = open_kafka_log(stream.kafka_settings(client=client), TelemetrySettings(), topics=[stream.topics["images"]])
    try:
        secure_kafka.allow(stream.user, "topic", topics["images"], ["write"])
        with KafkaProducer(**connection_options(stream.kafka_settings())) as producer:
            producer.send(topics["images"], b"event", partition=0).get(20)
        records: list[Record] = []
        deadline = time.monotonic() + 30
        while not records and time.monotonic() < deadline:
            records.extend(log.poll(0.1).records)
        assert [record.value for record in records] == [b"event"]
        verdict, offsets = Output(topics["verdicts"], b"verdict", b"key"), {Partition(topics["images"], 0): 1}
        secure_kafka.forbid(stream.user, "topic", topics["verdicts"], ["write"])
        with pytest.raises(CommitRefused, match=f"{topics['verdicts']}: no permission for the topic"):
            log.commit([verdict], offsets)
        secure_kafka.allow(stream.user, "topic", topics["verdicts"], ["write"])
        deadline = time.monotonic() + 30
        while True:  # a client may remember the refusal until it asks for the topic again
            try:
                log.commit([verdict], offsets)
                break
            except CommitRefused:
                assert time.monotonic() < deadline
                time.sleep(0.5)
    finally:
        log.close()
