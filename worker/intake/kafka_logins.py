"""How our clients log in to Kafka: passwords from files that may change, and tokens of OpenID Connect.

kafka-python keeps a password for as long as a client lives. A password of a file is read again at each login here, so
that a rotated one is used for the next connection without a restart.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import httpx
from kafka.errors import KafkaConfigurationError, SaslAuthenticationFailedError
from kafka.net.sasl import get_sasl_mechanism, register_sasl_mechanism
from kafka.net.sasl.oauth import AbstractTokenProvider

from worker.settings import KafkaOAuthSettings, KafkaSettings, SettingsError

TOKEN_SECONDS = 5.0
FRESH_PART = 0.8
"""A token is used for this part of its life."""
DEFAULT_LIFE_SECONDS = 300.0


class FilePassword(str):
    """The password in a file, as it was when this was made; `read` is what it is now."""

    __slots__ = ("path",)
    path: Path

    @classmethod
    def of(cls, path: Path) -> "FilePassword":
        """Raises SettingsError when there is no such file."""
        password = cls(read_secret(path))
        password.path = path
        return password

    def read(self) -> str:
        return read_secret(self.path)


def read_secret(path: Path) -> str:
    """A file's text without the end of its last line. Raises SettingsError."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: the secret cannot be read: {error}") from error


def login_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options of kafka-python for the login. Raises SettingsError when a secret cannot be read."""
    if not settings.sasl_mechanism:
        return {}
    options: dict[str, Any] = {"sasl_mechanism": settings.sasl_mechanism}
    if settings.sasl_username is not None:
        password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
        if settings.sasl_password_file is not None:
            password = FilePassword.of(settings.sasl_password_file)
        options |= {"sasl_plain_username": settings.sasl_username, "sasl_plain_password": password}
    if settings.sasl_oauth is not None:
        options["sasl_oauth_token_provider"] = ClientCredentials(settings.sasl_oauth)
    if settings.sasl_mechanism == "GSSAPI":
        options["sasl_kerberos_service_name"] = settings.sasl_kerberos_service_name
    return options


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """Tokens for a client id and its secret (RFC 6749, section 4.4), kept until they near their end. Thread-safe."""

    def __init__(self, settings: KafkaOAuthSettings, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._fresh_until = float("-inf")

    def token(self) -> str:
        """Raises SaslAuthenticationFailedError when the token endpoint gives none."""
        with self._lock:
            if self._clock() >= self._fresh_until:
                self._token, life = self._fetch()
                self._fresh_until = self._clock() + FRESH_PART * life
            return self._token

    def _fetch(self) -> tuple[str, float]:
        settings = self._settings
        asked = {"grant_type": "client_credentials"} | ({"scope": settings.scope} if settings.scope else {})
        try:
            answer = httpx.post(
                settings.token_url,
                data=asked,
                auth=(settings.client_id, self._secret()),
                timeout=TOKEN_SECONDS,
                verify=str(settings.ca_file) if settings.ca_file else True,
                follow_redirects=False,
            )
            answer.raise_for_status()
            body = answer.json()
            return str(body["access_token"]), float(body.get("expires_in", DEFAULT_LIFE_SECONDS))
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise SaslAuthenticationFailedError(
                f"{settings.token_url} gives no token: status {status}; check kafka.sasl_oauth"
            ) from None  # its text may hold the secret
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, SettingsError) as error:
            raise SaslAuthenticationFailedError(
                f"{settings.token_url} gives no token ({type(error).__name__}); check kafka.sasl_oauth"
            ) from error

    def _secret(self) -> str:
        if self._settings.client_secret_file is not None:
            return read_secret(self._settings.client_secret_file)
        return self._settings.client_secret.get_secret_value() if self._settings.client_secret else ""


def _with_present_password(mechanism: Any) -> Any:
    class WithPresentPassword(mechanism):  # type: ignore[misc]
        def __init__(self, **config: Any) -> None:
            password = config.get("sasl_plain_password")
            if isinstance(password, FilePassword):
                config["sasl_plain_password"] = password.read()
            super().__init__(**config)

    return WithPresentPassword


class _MskIam(get_sasl_mechanism("AWS_MSK_IAM")):  # type: ignore[misc]
    """Signs with the credentials that botocore finds at each connection, so that those that expire are renewed."""

    def auth_bytes(self) -> Any:
        """Raises SaslAuthenticationFailedError without credentials or region; the library raises AttributeError."""
        session = self._boto_session_cls()
        try:
            lacking = "credentials" if session.get_credentials() is None else ""
        except botocore.exceptions.BotoCoreError as error:
            raise SaslAuthenticationFailedError(f"no AWS credentials can be had: {error}") from error
        if not lacking and not session.get_config_variable("region"):
            lacking = "region (AWS_DEFAULT_REGION)"
        if lacking:
            raise SaslAuthenticationFailedError(f"AWS_MSK_IAM has no {lacking}")
        return super().auth_bytes()


class _Kerberos(get_sasl_mechanism("GSSAPI")):  # type: ignore[misc]
    """Logs in with the ticket of the process. The library lets errors of its own kinds through."""

    def __init__(self, **config: Any) -> None:
        """Raises KafkaConfigurationError without the package, SaslAuthenticationFailedError without a ticket."""
        service = f"{config.get('sasl_kerberos_service_name')}@{config.get('host')}"
        try:
            super().__init__(**config)
        except RuntimeError as error:
            raise KafkaConfigurationError(
                f"sasl_mechanism GSSAPI needs the package gssapi ({error}): pip install 'sluice[kerberos]'"
            ) from error
        except Exception as error:  # gssapi may not be installed, so its errors cannot be named here
            raise SaslAuthenticationFailedError(f"no Kerberos ticket for {service}: {error}") from error

    def receive(self, auth_bytes: bytes) -> None:
        """Raises SaslAuthenticationFailedError when the broker's answer does not fit."""
        try:
            super().receive(auth_bytes)
        except Exception as error:
            raise SaslAuthenticationFailedError(f"the broker's Kerberos answer is refused: {error}") from error


register_sasl_mechanism("AWS_MSK_IAM", _MskIam, overwrite=True)
register_sasl_mechanism("GSSAPI", _Kerberos, overwrite=True)
for _name in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
    register_sasl_mechanism(_name, _with_present_password(get_sasl_mechanism(_name)), overwrite=True)
