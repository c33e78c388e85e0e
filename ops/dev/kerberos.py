"""A Kerberos realm of its own (MIT's KDC), and a Kafka broker that takes its tickets. For tests.

Debian's packages: krb5-kdc, krb5-admin-server, krb5-user.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.dev.ports import free_ports
from ops.dev.process import Server, ServerError
from ops.dev.servers import KafkaServer

REALM = "SLUICE.TEST"
_SBIN = "/usr/sbin"

# Over TCP only, and without DNS: all names are what they are here.
_CLIENT = """\
[libdefaults]
default_realm = {realm}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
{realm} = {{
  kdc = 127.0.0.1:{port}
}}
"""
_KDC = """\
[kdcdefaults]
kdc_listen = ""
kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
}}
"""


class KdcServer(Server):
    """Gives tickets of REALM. Takes one port."""

    name = "kdc"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, free_ports(1))
        (self.port,) = self.ports
        self.config = self.directory / "krb5.conf"

    @staticmethod
    def is_installed() -> bool:
        return all(_program(name) for name in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit"))

    def prepare(self) -> None:
        values = {"realm": REALM, "port": self.port, "folder": self.data}
        self.config.write_text(_CLIENT.format(**values))
        (self.directory / "kdc.conf").write_text(_KDC.format(**values))
        if not (self.data / "principal").exists():
            self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "of a test")

    def command(self) -> Sequence[str]:
        return [_program("krb5kdc") or "krb5kdc", "-n", "-r", REALM]

    def environment(self) -> Mapping[str, str]:
        ours = {"KRB5_CONFIG": str(self.config), "KRB5_KDC_PROFILE": str(self.directory / "kdc.conf")}
        return {**super().environment(), **ours}

    def answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True

    def add(self, principal: str) -> Path:
        """Makes a principal; returns the file with its key."""
        keytab = self.directory / f"{principal.replace('/', '-')}.keytab"
        self._run("kadmin.local", "-r", REALM, "-q", f"addprinc -randkey {principal}")
        self._run("kadmin.local", "-r", REALM, "-q", f"ktadd -k {keytab} {principal}")
        return keytab

    def log_in(self, principal: str, keytab: Path, cache: Path) -> None:
        """Puts a ticket of the principal into the cache, as `kinit` does for a service."""
        self._run("kinit", "-k", "-t", str(keytab), "-c", str(cache), f"{principal}@{REALM}")

    def _run(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, **self.environment()}
        done = subprocess.run(
            [_program(program) or program, *arguments], env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ServerError(f"{program} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


_PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=GSSAPI
sasl.kerberos.service.name=kafka
listener.name.sasl_plaintext.gssapi.sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required \\
  useKeyTab=true storeKey=true keyTab="{keytab}" principal="kafka/127.0.0.1@{realm}";
"""


class KerberosKafkaServer(KafkaServer):
    """The broker of `KafkaServer` with a listener that takes tickets of the realm."""

    name = "kerberos-kafka"

    def __init__(self, directory: Path, kdc: KdcServer) -> None:
        super().__init__(directory, free_ports(3))
        self.sasl_port = self.ports[2]
        self._kdc = kdc
        self._keytab = kdc.add("kafka/127.0.0.1")

    @property
    def sasl_servers(self) -> str:
        return f"127.0.0.1:{self.sasl_port}"

    def properties(self) -> str:
        return super().properties() + _PROPERTIES.format(
            port=self.port,
            controller_port=self._controller_port,
            sasl_port=self.sasl_port,
            keytab=self._keytab,
            realm=REALM,
        )

    def command(self) -> Sequence[str]:
        program, *rest = super().command()
        return [program, f"-Djava.security.krb5.conf={self._kdc.config}", *rest]


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), _SBIN]))
