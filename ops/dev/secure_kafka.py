"""A Kafka broker as production has it: TLS, SASL, client certificates and access control lists. For tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from ops.dev.ports import free_ports
from ops.dev.servers import KafkaServer

# The plain listener is the administrator's: whoever comes in there is ANONYMOUS, the superuser. The token listener
# takes tokens without a signature, which is what a test can make.
_PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{sasl_port},SSL://127.0.0.1:{tls_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{sasl_port},SSL://127.0.0.1:{tls_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.ssl.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=(.*?)(,.*)?$/$1/,DEFAULT
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_plain-user="{plain_password}";
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\\
  org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \\
  unsecuredLoginStringClaim_sub="broker";
"""

PLAIN_USER = "plain-user"
PLAIN_PASSWORD = "plain-password"  # a test's


class SecureKafkaServer(KafkaServer):
    """The broker of `KafkaServer` with a SASL_SSL and an SSL listener beside its own, and StandardAuthorizer.

    Everybody but the administrator, who uses `bootstrap_servers` without a password, may do only what `allow` lets
    them. `ca` is the file of the authority that signed the broker's certificate and signs clients'.
    """

    name = "secure-kafka"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, free_ports(4))
        self.sasl_port, self.tls_port = self.ports[2:]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA()
        self.ca = self.directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self._keystore = self.directory / "broker.pem"
        certificate = self.authority.issue_cert("127.0.0.1")
        # Java reads keys in PKCS #8 only, trustme writes the older form.
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._keystore.touch(mode=0o600)
        self._keystore.write_bytes(pkcs8 + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))

    @property
    def sasl_servers(self) -> str:
        """The address of the listener with passwords and tokens."""
        return f"127.0.0.1:{self.sasl_port}"

    @property
    def tls_servers(self) -> str:
        """The address of the listener that asks for a client's certificate."""
        return f"127.0.0.1:{self.tls_port}"

    def properties(self) -> str:
        return super().properties() + _PROPERTIES.format(
            port=self.port,
            controller_port=self._controller_port,
            sasl_port=self.sasl_port,
            tls_port=self.tls_port,
            keystore=self._keystore,
            ca=self.ca,
            plain_password=PLAIN_PASSWORD,
        )

    def admin(self) -> Any:
        """A client that may do everything."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)

    def add_user(self, name: str, password: str) -> None:
        """Makes a user for SCRAM-SHA-512, or sets its password."""
        with self.admin() as admin:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password)]
            )

    def allow(self, user: str, kind: str, name: str, operations: Iterable[str]) -> None:
        """Lets a user do `operations` (`read`, `write`) on the topic, group or transactional_id `name`; a name that
        ends in `*` stands for all that begin so."""
        with self.admin() as admin:
            admin.create_acls([_acl(user, kind, name, operation) for operation in operations])

    def forbid(self, user: str, kind: str, name: str, operations: Iterable[str]) -> None:
        """Takes back what `allow` gave."""
        with self.admin() as admin:
            filters = [_filter(user, kind, name, operation) for operation in operations]
            admin.delete_acls(filters)


def _pattern(kind: str, name: str) -> tuple[ResourceType, str, ACLResourcePatternType]:
    resource = ResourceType[kind.upper()]
    if name.endswith("*") and name != "*":
        return resource, name[:-1], ACLResourcePatternType.PREFIXED
    return resource, name, ACLResourcePatternType.LITERAL


def _acl(user: str, kind: str, name: str, operation: str) -> ACL:
    return ACL(
        f"User:{user}",
        "*",
        ACLOperation[operation.upper()],
        ACLPermissionType.ALLOW,
        ResourcePattern(*_pattern(kind, name)),
    )


def _filter(user: str, kind: str, name: str, operation: str) -> ACLFilter:
    return ACLFilter(
        f"User:{user}",
        "*",
        ACLOperation[operation.upper()],
        ACLPermissionType.ALLOW,
        ResourcePatternFilter(*_pattern(kind, name)),
    )
