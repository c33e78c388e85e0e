"""Redis as production has it: TLS with users, and a sentinel that names the primary. For tests."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import redis
import trustme

from ops.dev.ports import free_ports
from ops.dev.process import Server, ServerError
from ops.dev.servers import RedisServer


class TlsRedisServer(RedisServer):
    """Redis that speaks TLS only and asks for no client's certificate. `ca` signed its certificate."""

    name = "tls-redis"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, free_ports(1))
        self.directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.ca = self.directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert("127.0.0.1")
        self._certificate, self._key = self.directory / "redis.pem", self.directory / "redis.key"
        self._key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(self._key)
        self._certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        program, *_ = super().command()
        tls = ["--tls-cert-file", self._certificate, "--tls-key-file", self._key, "--tls-ca-cert-file", self.ca]
        port = ["--bind", "127.0.0.1", "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        return [program, *port, *map(str, tls), "--save", "", "--appendonly", "no"]

    def client(self) -> redis.Redis:
        """The administrator."""
        client: redis.Redis = redis.Redis.from_url(self.url, ssl_ca_certs=str(self.ca), socket_timeout=1.0)
        return client

    def answers(self) -> bool:
        with self.client() as client:
            return bool(client.ping())


class SentinelServer(Server):
    """One Redis Sentinel that watches `primary` under the name `sluice`."""

    name = "redis-sentinel"
    primary_name = "sluice"

    def __init__(self, directory: Path, primary: RedisServer) -> None:
        super().__init__(directory, free_ports(1))
        (self.port,) = self.ports
        self._primary = primary
        self._config = self.directory / "sentinel.conf"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:
        # Sentinel writes into its configuration, so each start has a new one.
        self._config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nsentinel monitor {self.primary_name} 127.0.0.1 {self._primary.port} 1\n"
        )

    def command(self) -> Sequence[str]:
        if (program := shutil.which("redis-server")) is None:
            raise ServerError("redis-server is not on the PATH: install Redis (Debian: apt-get install redis-server)")
        return [program, str(self._config), "--sentinel"]

    def answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1.0) as client:
            return bool(client.ping())
