"""Kafka with Kerberos: a real KDC, a real broker, and the ticket of this process.

Left out where the package `gssapi` (which is compiled at its installation) or MIT's KDC is not installed.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from ops.dev.kerberos import KdcServer, KerberosKafkaServer
from worker.intake.kafka_probe import admin_client, require_login
from worker.intake.log import LogRefused
from worker.settings import KafkaSettings

pytest.importorskip("gssapi", reason="pip install 'sluice[kerberos]' compiles it; it needs libkrb5-dev and a compiler")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not KdcServer.is_installed(), reason="Debian: krb5-kdc krb5-admin-server krb5-user"),
]


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KdcServer]:
    server = KdcServer(tmp_path_factory.mktemp("kdc"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def kafka(kdc: KdcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerberosKafkaServer]:
    server = KerberosKafkaServer(tmp_path_factory.mktemp("kerberos-kafka"), kdc)
    server.start()
    with KafkaAdminClient(bootstrap_servers=server.bootstrap_servers) as admin:
        admin.create_topics({"images": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    yield server
    server.stop()


@pytest.fixture
def settings(
    kdc: KdcServer, kafka: KerberosKafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> KafkaSettings:
    monkeypatch.setenv("KRB5_CONFIG", str(kdc.config))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'tickets'}")
    return KafkaSettings.model_validate(
        {
            "bootstrap_servers": kafka.sasl_servers,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "GSSAPI",
        }
    )


def test_a_process_with_a_ticket_may_in(kdc: KdcServer, settings: KafkaSettings, tmp_path: Path) -> None:
    kdc.log_in("sluice", kdc.add("sluice"), tmp_path / "tickets")
    with admin_client(settings) as admin:
        (described,) = admin.describe_topics(["images"])
    assert len(described["partitions"]) == 1


def test_a_process_without_a_ticket_is_told_so(settings: KafkaSettings) -> None:
    with pytest.raises(LogRefused, match="Kerberos ticket"):
        require_login(settings)


def test_a_service_that_the_realm_does_not_know_is_named(
    kdc: KdcServer, settings: KafkaSettings, tmp_path: Path
) -> None:
    kdc.log_in("another", kdc.add("another"), tmp_path / "tickets")
    wrong = settings.model_copy(update={"sasl_kerberos_service_name": "broker"})
    with pytest.raises(LogRefused, match=r"broker"):
        require_login(wrong)
