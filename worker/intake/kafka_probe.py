"""Checks whether a broker can be used: name, port, TLS and login in turn, with an error message for each.

kafka-python's clients try every broker until a timeout and then say only that none answered. This tries each broker
once.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager

from kafka import errors
from kafka.errors import KafkaError
from kafka.protocol.consumer import HeartbeatRequest
from kafka.protocol.producer import AddOffsetsToTxnRequest

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_python_fixes import FixedAdminClient, LoginClient, LoginCutOff, LoginMissing
from worker.intake.log import LogError, LogRefused
from worker.settings import KafkaSettings, SettingsError

CONNECT_SECONDS = 3.0
REQUEST_SECONDS = 5.0
NO_PRODUCER = 2**63 - 1
"""Kafka never assigns this producer id: it counts from 0."""


def require_login(settings: KafkaSettings) -> None:
    """Returns when at least one of `bootstrap_servers` accepts our login.

    Raises LogRefused where a password, a certificate or a setting is wrong, LogError where a broker may yet come up.
    """
    failures: list[LogError] = []
    for address in settings.bootstrap_servers.split(","):
        try:
            _try(settings, address.strip())
        except LogRefused as error:
            raise error from None
        except LogError as error:
            failures.append(error)
        else:
            return
    raise failures[0]


def _try(settings: KafkaSettings, address: str) -> None:
    try:
        connection_options(settings)
    except SettingsError as error:
        raise LogRefused(str(error)) from error
    host, port = _split(address)
    try:
        sock = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except socket.gaierror as error:
        raise LogError(
            f"Kafka at {address}: the name {host} cannot be resolved ({error.strerror}); check kafka.bootstrap_servers"
        ) from error
    except OSError as error:
        raise LogError(
            f"no Kafka broker answers at {address} ({error.strerror or error}): check kafka.bootstrap_servers, "
            "firewalls, and that the broker runs"
        ) from error
    with sock:
        if settings.security_protocol in ("SSL", "SASL_SSL"):
            _try_tls(settings, address, host, sock)
    _try_login(settings, address)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise LogRefused(f"{address!r} is not the address of a Kafka broker: kafka.bootstrap_servers takes host:port")
    return host, int(port)


def _try_tls(settings: KafkaSettings, address: str, host: str, sock: socket.socket) -> None:
    context = _context(settings)
    try:
        context.wrap_socket(sock, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        if "mismatch" in error.verify_message or "not valid for" in error.verify_message:
            what = f"its certificate is not for {host}: use the name in the certificate in kafka.bootstrap_servers"
        elif "expired" in error.verify_message:
            what = "its certificate has expired: renew it"
        else:
            what = "its certificate is not signed by an authority that kafka.ssl_cafile names: set it to the broker's"
        raise LogRefused(f"the Kafka broker at {address} cannot be trusted, {what} ({error.verify_message})") from error
    except ssl.SSLError as error:
        raise LogRefused(
            f"the Kafka broker at {address} does not speak TLS ({error.reason}); check that "
            f"kafka.security_protocol, now {settings.security_protocol}, is what that port is for"
        ) from error
    except OSError as error:
        raise LogError(
            f"the Kafka broker at {address} ends the TLS handshake ({error.strerror or error}); it may still be "
            f"starting, or that port is not for kafka.security_protocol {settings.security_protocol}"
        ) from error


def _context(settings: KafkaSettings) -> ssl.SSLContext:
    options = connection_options(settings)
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_cafile"))
        if options.get("ssl_certfile"):
            context.load_cert_chain(options["ssl_certfile"], options["ssl_keyfile"], options.get("ssl_password"))
    except (OSError, ValueError) as error:
        files = "kafka.ssl_cafile, ssl_certfile, ssl_keyfile and ssl_key_password"
        raise LogRefused(f"the certificates for Kafka cannot be used ({error}): check {files}") from error
    return context


def _try_login(settings: KafkaSettings, address: str) -> None:
    options = connection_options(settings) | {"bootstrap_servers": [address]}
    try:
        with closing(LoginClient(**options)) as client:
            client.log_in(CONNECT_SECONDS)
    except (errors.SaslAuthenticationFailedError, LoginCutOff) as error:
        raise LogRefused(
            f"Kafka at {address} refuses {_who(settings)} ({error}): check {_login_settings(settings)} and "
            "kafka.sasl_mechanism"
        ) from error
    except LoginMissing as error:
        raise LogRefused(
            f"Kafka at {address} asks for a login: set kafka.security_protocol, now {settings.security_protocol}, to "
            "SASL_SSL or SASL_PLAINTEXT, and kafka.sasl_mechanism"
        ) from error
    except errors.UnsupportedSaslMechanismError as error:
        raise LogRefused(
            f"Kafka at {address} does not offer kafka.sasl_mechanism {settings.sasl_mechanism}: {error}"
        ) from error
    except errors.KafkaConnectionError as error:
        if "alert" in str(error) and "certificate" in str(error):
            raise LogRefused(
                f"the Kafka broker at {address} requires a client certificate that it trusts ({error}): set "
                "kafka.ssl_certfile and kafka.ssl_keyfile"
            ) from error
        raise LogError(
            f"the Kafka broker at {address} closes the connection ({error}); check that kafka.security_protocol, now "
            f"{settings.security_protocol}, is what that port is for"
        ) from error
    except errors.KafkaConfigurationError as error:
        raise LogRefused(f"the settings for Kafka cannot be used: {error}") from error
    except (KafkaError, OSError, ValueError) as error:
        raise LogError(f"the server at {address} does not answer as a Kafka broker does ({error})") from error


def _login_settings(settings: KafkaSettings) -> str:
    if settings.sasl_mechanism == "OAUTHBEARER":
        return "kafka.sasl_oauth"
    if settings.sasl_mechanism == "AWS_MSK_IAM":
        return "the AWS_* variables, profile or role"
    return "the Kerberos ticket" if settings.sasl_mechanism == "GSSAPI" else "kafka.sasl_username, kafka.sasl_password"


def _who(settings: KafkaSettings) -> str:
    return f"the user {settings.sasl_username}" if settings.sasl_username else "our credentials"


@contextmanager
def admin_client(settings: KafkaSettings, *, request_seconds: float = REQUEST_SECONDS) -> Iterator[FixedAdminClient]:
    """A kafka-python admin client, closed at the end. Raises LogError and LogRefused, which say what is wrong."""
    require_login(settings)
    options = connection_options(settings) | {"request_timeout_ms": int(request_seconds * 1000)}
    try:
        client = FixedAdminClient(**options)
    except (KafkaError, OSError, ValueError) as error:
        raise LogError(
            f"Kafka at {settings.bootstrap_servers} accepts the connection but reports no broker ({error}): check its "
            "advertised.listeners"
        ) from error
    try:
        yield client
    finally:
        client.close()


def may_use_group(admin: FixedAdminClient, group: str) -> bool:
    """Whether we may join the group. Sends the heartbeat of a member that does not exist: the broker checks permissions
    first."""
    request = HeartbeatRequest(group_id=group, generation_id=-1, member_id="sluice-permission-check")
    return admin.ask(request) is not errors.GroupAuthorizationFailedError


def may_use_transactional_id(admin: FixedAdminClient, transactional_id: str, group: str) -> bool:
    """Whether we may write transactions with that id. Adds offsets for a producer that does not exist: the broker
    checks permissions first."""
    request = AddOffsetsToTxnRequest(
        transactional_id=transactional_id, producer_id=NO_PRODUCER, producer_epoch=0, group_id=group, max_version=3
    )
    return admin.ask(request) is not errors.TransactionalIdAuthorizationFailedError
