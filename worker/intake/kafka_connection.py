"""The connection options of all our Kafka clients."""

from typing import Any

from worker.intake.kafka_logins import login_options, read_secret
from worker.settings import KafkaSettings

BOOTSTRAP_MS = 10_000
"""How long the first broker may take to answer, before the user hears of it."""
RECONNECT_MS = 3_000
"""At most so long apart clients try a broker that is gone: they are back soon after it. kafka-python's 30 s kept what
followed a topic silent for a minute after an outage of a minute."""


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options that consumers, producers and admin clients of kafka-python share: addresses and security.

    kafka-python reads certificates and keys at each connection, and so uses those that were renewed. Raises
    SettingsError when a secret's file cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": RECONNECT_MS,
        "security_protocol": settings.security_protocol,
    }
    options |= login_options(settings)
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(settings, name)
        if path is not None:
            options[name] = str(path)
    if settings.ssl_key_password_file is not None:
        options["ssl_password"] = read_secret(settings.ssl_key_password_file)
    elif settings.ssl_key_password is not None:
        options["ssl_password"] = settings.ssl_key_password.get_secret_value()
    return options
