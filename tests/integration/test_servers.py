"""The test servers themselves: what they promise to the tests that use them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from botocore.exceptions import ClientError
from kafka import KafkaConsumer, KafkaProducer

from ops.dev.kafka_jars import java
from ops.dev.pids import birth, end
from ops.dev.process import ServerError
from ops.dev.servers import KafkaServer, RedisServer, S3Server


def _read(server: KafkaServer, topic: str, count: int, *, isolation_level: str = "read_uncommitted") -> list[bytes]:
    """The topic's values, once there are `count` of them or 20 s are over."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=server.bootstrap_servers,
        auto_offset_reset="earliest",
        group_id=None,
        isolation_level=isolation_level,
    )
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=500).values():
            values += [record.value for record in records]
    consumer.close()
    return values


def test_a_broker_killed_and_started_again_has_kept_its_records(kafka_server: KafkaServer, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers, acks="all")
    producer.send(topic, b"before").get(timeout=10)
    port, pid = kafka_server.port, kafka_server.pid

    kafka_server.kill()
    assert kafka_server.pid is None
    kafka_server.start()

    assert kafka_server.port == port
    assert kafka_server.pid not in (None, pid)
    producer.send(topic, b"after").get(timeout=30)
    producer.close()
    assert sorted(_read(kafka_server, topic, 2)) == [b"after", b"before"]


def test_the_transaction_of_a_producer_that_died_is_aborted_soon_after_its_timeout(
    kafka_server: KafkaServer, topic: str, unique_name: str
) -> None:
    orphan = f"""
import os
from kafka import KafkaProducer
producer = KafkaProducer(bootstrap_servers={kafka_server.bootstrap_servers!r}, transactional_id={unique_name!r},
                         transaction_timeout_ms=2000)
producer.init_transactions()
producer.begin_transaction()
producer.send({topic!r}, b"never committed", partition=0).get(timeout=10)
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", orphan]).returncode == 9
    died = time.monotonic()
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers)
    producer.send(topic, b"behind it", partition=0).get(timeout=10)
    producer.close()

    assert _read(kafka_server, topic, 1, isolation_level="read_committed") == [b"behind it"]
    assert time.monotonic() - died < 12


def test_a_topic_that_nobody_created_is_not_made_by_sending_to_it(kafka_server: KafkaServer, unique_name: str) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers, max_block_ms=2000)
    with pytest.raises(Exception, match=r"(?i)topic|metadata|timeout") as refused:
        producer.send(unique_name, b"x").get(timeout=5)
    producer.close()
    assert not isinstance(refused.value, AssertionError)
    assert unique_name not in _topics(kafka_server)


def _topics(server: KafkaServer) -> set[str]:
    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap_servers)
    try:
        return set(consumer.topics())
    finally:
        consumer.close()


def test_redis_is_empty_for_every_test(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_for_the_next_test_too(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_s3_keeps_objects_across_a_kill(s3_server: S3Server, bucket: str) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="a folder/ü.txt", Body=b"kept")
    s3_server.kill()
    s3_server.start()
    assert s3_server.client().get_object(Bucket=bucket, Key="a folder/ü.txt")["Body"].read() == b"kept"


def test_s3_refuses_a_wrong_secret(tmp_path: Path, s3_server: S3Server, bucket: str) -> None:
    ports = (s3_server.port, 1, 1, 1, 1)
    stranger = S3Server(tmp_path, ports, credentials=(s3_server.access_key, "guessed")).client()
    with pytest.raises(ClientError) as refused:
        stranger.list_objects_v2(Bucket=bucket)
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from ops.dev.servers import RedisServer
server = RedisServer(Path({str(tmp_path)!r}))
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    pid = int(parent.stdout)
    deadline = time.monotonic() + 5
    while birth(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert birth(pid) is None


def test_a_server_that_cannot_start_says_why(tmp_path: Path, redis_server: RedisServer) -> None:
    second = RedisServer(tmp_path, [redis_server.port])
    with pytest.raises(ServerError, match=f"{redis_server.port}.*another program"):
        second.start()
    assert second.pid is None


def test_a_missing_program_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ServerError, match="apt-get install redis-server"):
        RedisServer(tmp_path).start()
    with pytest.raises(ServerError, match="Java 17 or newer"):
        java()


def test_a_java_too_old_for_kafka_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ServerError, match=r"needs Java 17 or newer.*11\.0\.2"):
        java()


def test_a_reused_process_id_is_not_taken_for_the_server() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        assert not end(sleeper.pid, "born at another time")
        assert sleeper.poll() is None
        born = birth(sleeper.pid)
        assert born is not None
        assert end(sleeper.pid, born)
        assert sleeper.wait() == -15
    finally:
        sleeper.kill()
