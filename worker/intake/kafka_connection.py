"""How every client of ours connects to Kafka."""

from typing import Any

from worker.settings import KafkaSettings

BOOTSTRAP_MS = 10_000
"""How long the first broker may take to answer, before the user hears of it."""
RECONNECT_MS = 3_000
"""At most so long apart clients try a broker that is gone: they are back soon after it. kafka-python's 30 s kept what
followed a topic silent for a minute after an outage of a minute."""


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options that consumers, producers and admin clients of kafka-python share: addresses and security."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": RECONNECT_MS,
        "security_protocol": settings.security_protocol,
    }
    if settings.sasl_mechanism:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
        }
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(settings, name)
        if path is not None:
            options[name] = str(path)
    return options
