"""`sluice doctor` and the checks before `sluice up`, against a broker with TLS, logins and permissions."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
import yaml

from ops.dev.ports import free_ports
from ops.dev.secure_kafka import SecureKafkaServer
from ops.dev.servers import RedisServer, S3Server
from tests.integration.secure_stream import SecureStream
from tests.integration.streams import SLUICE
from worker.preflight import CheckStatus, Finding, blocking, check_servers
from worker.settings import Settings

Config = dict[str, Any]
WRONG = {CheckStatus.WRONG, CheckStatus.BLOCKED}


@pytest.fixture
def stream(secure_kafka: SecureKafkaServer) -> SecureStream:
    return SecureStream(secure_kafka)


@pytest.fixture
def config(
    stream: SecureStream, redis_server: RedisServer, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Config:
    """A set-up in which nothing is wrong."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    return {
        "kafka": stream.settings(),
        "redis": {"url": redis_server.url},
        "s3": {"endpoint_url": s3_server.endpoint, "region": s3_server.region, "addressing_style": "path"},
    }


def _wrong(config: Config) -> list[Finding]:
    return [finding for finding in check_servers(Settings(**config)) if finding.status in WRONG]


def test_a_set_up_without_faults_is_found_to_be_well(config: Config) -> None:
    findings = list(check_servers(Settings(**config)))
    assert [finding for finding in findings if finding.status in WRONG] == []
    checks = {finding.check for finding in findings if finding.status is CheckStatus.OK}
    assert {"Redis", "S3", "clock of Redis", "clock of S3"} <= checks


def test_the_desk_needs_more_permissions_than_the_worker(stream: SecureStream, config: Config) -> None:
    wrong = [f for f in check_servers(Settings(**config), desk=True) if f.status in WRONG]
    assert any("no permission to read" in finding.detail for finding in wrong)


def _without(kind: str, name: str, operation: str) -> Callable[[SecureStream, Config], None]:
    def take(stream: SecureStream, config: Config) -> None:
        resource = stream.topics.get(name, name.replace("GROUP", stream.group))
        stream.kafka.forbid(stream.user, kind, resource, [operation])

    return take


def _password(stream: SecureStream, config: Config) -> None:
    config["kafka"]["sasl_password"] = "not the password"


def _authority(stream: SecureStream, config: Config) -> None:
    other = stream.kafka.directory / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(other)
    config["kafka"]["ssl_cafile"] = str(other)


def _no_broker(stream: SecureStream, config: Config) -> None:
    config["kafka"]["bootstrap_servers"] = f"127.0.0.1:{free_ports(1)[0]}"


def _no_login(stream: SecureStream, config: Config) -> None:
    login = {"security_protocol": "SSL", "sasl_mechanism": None, "sasl_username": None, "sasl_password": None}
    config["kafka"] |= login


def _plain_port(stream: SecureStream, config: Config) -> None:
    config["kafka"]["bootstrap_servers"] = stream.kafka.bootstrap_servers


def _no_certificate(stream: SecureStream, config: Config) -> None:
    _no_login(stream, config)
    config["kafka"]["bootstrap_servers"] = stream.kafka.tls_servers


def _deleted_topic(stream: SecureStream, config: Config) -> None:
    # With Describe on it Kafka tells that a topic does not exist, else it tells nothing.
    stream.delete_topic("dead")


def _no_retry_topic(stream: SecureStream, config: Config) -> None:
    """As after an upgrade from a version without retry topics."""
    stream.delete_topic("retry_1")


def _small_topic(stream: SecureStream, config: Config) -> None:
    stream.configure("dead", max_message_bytes="1048588")


def _compacted_images(stream: SecureStream, config: Config) -> None:
    stream.configure("images", cleanup_policy="compact")


def _too_many_replicas(stream: SecureStream, config: Config) -> None:
    stream.configure("verdicts", min_insync_replicas="2")


def _long_transactions(stream: SecureStream, config: Config) -> None:
    stream.kafka.allow(stream.user, "cluster", "kafka-cluster", ["describe_configs"])
    config["kafka"]["transaction_timeout_seconds"] = 10_000


def _no_redis(stream: SecureStream, config: Config) -> None:
    config["redis"]["url"] = f"redis://127.0.0.1:{free_ports(1)[0]}/0"


def _redis_user(stream: SecureStream, config: Config) -> None:
    with redis.Redis.from_url(config["redis"]["url"]) as client:
        client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@read", "+@connection"])
    config["redis"]["url"] = config["redis"]["url"].replace("redis://", "redis://reader:pw@")


BROKEN: dict[str, tuple[Callable[[SecureStream, Config], None], str, str, CheckStatus]] = {
    "no write on verdicts": (
        _without("topic", "verdicts", "write"),
        "no permission to write",
        "--operation Write --topic",
        CheckStatus.BLOCKED,
    ),
    "no read on images": (
        _without("topic", "images", "read"),
        "no permission to read",
        "--operation Read --topic",
        CheckStatus.BLOCKED,
    ),
    "no group": (
        _without("group", "GROUP", "read"),
        "no permission to read as a member",
        "--operation Read --group",
        CheckStatus.BLOCKED,
    ),
    "no transactional id": (
        _without("transactional_id", "GROUP-*", "write"),
        "no permission to write in transactions",
        "--resource-pattern-type prefixed",
        CheckStatus.BLOCKED,
    ),
    "wrong password": (_password, "refuses the user", "check kafka.sasl_username", CheckStatus.BLOCKED),
    "wrong authority": (_authority, "not signed by an authority", "kafka.ssl_cafile", CheckStatus.BLOCKED),
    "no broker": (_no_broker, "no Kafka broker answers", "check kafka.bootstrap_servers", CheckStatus.BLOCKED),
    "no login": (_no_login, "asks for a login", "set kafka.security_protocol", CheckStatus.BLOCKED),
    "plain port": (_plain_port, "does not speak TLS", "kafka.security_protocol", CheckStatus.BLOCKED),
    "no certificate": (_no_certificate, "certificate", "kafka.ssl_certfile", CheckStatus.BLOCKED),
    "deleted topic": (_deleted_topic, "does not exist", "sluice topics create", CheckStatus.BLOCKED),
    "no retry topic": (_no_retry_topic, "does not exist", "sluice topics create", CheckStatus.BLOCKED),
    "small topic": (_small_topic, "max.message.bytes 1048588 is less than", "set the topic's", CheckStatus.WRONG),
    "compacted images": (_compacted_images, "cleanup.policy has compact", "set cleanup.policy", CheckStatus.WRONG),
    "too many replicas": (
        _too_many_replicas,
        "min.insync.replicas 2 is more than",
        "add replicas",
        CheckStatus.BLOCKED,
    ),
    "long transactions": (_long_transactions, "transaction.max.timeout.ms", "lower the setting", CheckStatus.BLOCKED),
    "no Redis": (_no_redis, "does not answer", "check redis.url", CheckStatus.WRONG),
    "Redis user": (_redis_user, "no permission", "ACL SETUSER", CheckStatus.WRONG),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_doctor_names_a_broken_set_up_and_says_what_to_do(stream: SecureStream, config: Config, name: str) -> None:
    spoil, what, advice, status = BROKEN[name]
    spoil(stream, config)
    started = time.monotonic()
    found = _wrong(config)
    assert time.monotonic() - started < 10, "a wrong setting is told at once"
    assert len(found) == 1, found
    assert what in found[0].detail
    assert advice in f"{found[0].detail} {found[0].advice}"
    assert found[0].status is status
    assert bool(blocking(found)) == (status is CheckStatus.BLOCKED)


def test_a_wrong_secret_for_s3_is_named(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (found,) = _wrong(config)
    assert (found.check, found.status) == ("S3", CheckStatus.WRONG)
    assert "is wrong" in found.detail


def test_the_command_prints_a_table_and_fails_where_something_is_wrong(
    stream: SecureStream, config: Config, tmp_path: Path
) -> None:
    file = tmp_path / "sluice.yaml"
    file.write_text(yaml.safe_dump(config))
    well = subprocess.run([SLUICE, "doctor", "--config", file], capture_output=True, text=True)
    assert well.returncode == 0, well.stdout + well.stderr
    assert "checks passed" in well.stdout

    stream.kafka.forbid(stream.user, "topic", stream.topics["dead"], ["write"])
    ill = subprocess.run([SLUICE, "doctor", "--config", file], capture_output=True, text=True)
    assert ill.returncode == 1
    assert "blocked" in ill.stdout
    assert "Redis" in ill.stdout, "all else is checked too"
    assert stream.password not in ill.stdout + ill.stderr


def test_up_ends_at_once_and_names_the_missing_permission(stream: SecureStream, config: Config, tmp_path: Path) -> None:
    stream.kafka.forbid(stream.user, "topic", stream.topics["verdicts"], ["write"])
    file = tmp_path / "sluice.yaml"
    file.write_text(yaml.safe_dump(config))
    started = time.monotonic()
    ended = subprocess.run([SLUICE, "up", "--config", file], capture_output=True, text=True, timeout=60)
    seconds = time.monotonic() - started
    assert ended.returncode == 1
    assert f"Kafka topic {stream.topics['verdicts']}: no permission to write" in ended.stderr
    assert "topics create" not in ended.stderr
    assert seconds < 10
