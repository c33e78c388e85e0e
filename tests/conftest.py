"""Real servers for tests: each starts when the first test asks for it, and ends with the run."""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pytest
import redis
from kafka.admin import KafkaAdminClient

from ops.dev.process import Server
from ops.dev.secure_kafka import SecureKafkaServer
from ops.dev.servers import KafkaServer, RedisServer, S3Server

# Ray reads these when it is first imported. Whoever reaches its ports may run code, so it asks for a token, which is
# this run's own; without one it would keep one in the user's home.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

_SERVER_FIXTURES = {"kafka_server", "secure_kafka", "redis_server", "s3_server"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a server is an integration test."""
    for item in items:
        if _SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("integration")


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the three servers are, and how to get in."""

    kafka: str
    redis_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str


def _running(server: Server) -> None:
    """A test may have killed it, and not every such test gets to start it again."""
    if server.pid is None:
        server.start()


@pytest.fixture(scope="session")
def _kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafkaServer]:
    server = SecureKafkaServer(tmp_path_factory.mktemp("secure-kafka"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def kafka_server(_kafka_server: KafkaServer) -> KafkaServer:
    """The run's broker, running. `kill()` and `start()` crash it and bring it back with its data."""
    _running(_kafka_server)
    return _kafka_server


@pytest.fixture
def secure_kafka(_secure_kafka: SecureKafkaServer) -> SecureKafkaServer:
    """A second broker of the run: with TLS, logins and access control lists."""
    _running(_secure_kafka)
    return _secure_kafka


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """The run's Redis, running and empty."""
    _running(_redis_server)
    with redis.Redis.from_url(_redis_server.url) as client:
        client.flushall()
    return _redis_server


@pytest.fixture
def s3_server(_s3_server: S3Server) -> S3Server:
    """The run's S3, running. `client()` is a boto3 client that may do everything."""
    _running(_s3_server)
    return _s3_server


@pytest.fixture
def servers(kafka_server: KafkaServer, redis_server: RedisServer, s3_server: S3Server) -> Servers:
    """All three, running."""
    return Servers(
        kafka=kafka_server.bootstrap_servers,
        redis_url=redis_server.url,
        s3_endpoint=s3_server.endpoint,
        s3_access_key=s3_server.access_key,
        s3_secret_key=s3_server.secret_key,
        s3_region=s3_server.region,
    )


@pytest.fixture
def unique_name() -> str:
    """A name no other test has: for a consumer group, a transactional id, a topic or a bucket."""
    return f"test-{secrets.token_hex(6)}"


class NewTopic(Protocol):
    """Creates a topic with a name of its own and returns the name; `configs` are Kafka's topic options."""

    def __call__(self, partitions: int = ..., configs: Mapping[str, str] | None = ...) -> str: ...


@pytest.fixture
def new_topic(kafka_server: KafkaServer) -> NewTopic:
    """Creates topics that no other test knows: `new_topic(partitions=4)`."""

    def create(partitions: int = 4, configs: Mapping[str, str] | None = None) -> str:
        name = f"test-{secrets.token_hex(6)}"
        options = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}
        with KafkaAdminClient(bootstrap_servers=kafka_server.bootstrap_servers) as admin:
            admin.create_topics({name: options}, wait_for_metadata=True)
        return name

    return create


@pytest.fixture
def topic(new_topic: NewTopic) -> str:
    """A fresh topic of four partitions."""
    return new_topic()


@pytest.fixture
def bucket(s3_server: S3Server, unique_name: str) -> Iterator[str]:
    """A fresh bucket, removed with all it holds when the test is over."""
    client = s3_server.client()
    client.create_bucket(Bucket=unique_name)
    yield unique_name
    if s3_server.pid is not None:
        client.delete_bucket(Bucket=unique_name)
