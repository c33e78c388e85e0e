"""Sends messages to a webhook as signed HTTP requests."""

import hashlib
import hmac
import ssl
from functools import partial
from typing import Final

import httpcore
import httpx

from worker.images.errors import ImageError
from worker.images.fetch.addresses import is_listed
from worker.images.fetch.network import Deadline, GuardedNetwork
from worker.settings import WebhookSettings

SIGNATURE: Final = "Sluice-Signature"
TIMESTAMP: Final = "Sluice-Timestamp"
WEBHOOK: Final = "Sluice-Webhook"
DELIVERY: Final = "Sluice-Delivery"
_AGAIN: Final = {408, 409, 425, 429}


class NotDelivered(Exception):
    """The receiver did not take it; trying again may help."""


class Refused(Exception):
    """The receiver, or our own rules, will not take this, now or later."""


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """`v1=` and the hexadecimal HMAC-SHA256 of `timestamp.body`.

    A receiver computes the same, compares in constant time, and refuses timestamps (seconds since the epoch) that are
    more than a few minutes old, so that nobody can send an old call again.
    """
    return "v1=" + hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()


class Webhook:
    """Posts JSON. Addresses follow the rules of image fetching: public ones, or hosts that are listed; no redirect is
    followed. One thread at a time."""

    def __init__(self, name: str, settings: WebhookSettings, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._name = name
        self._settings = settings
        self._url = httpx.URL(settings.url)
        self._deadline = Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or httpcore.default_ssl_context(),
            network_backend=GuardedNetwork(partial(is_listed, allowed_hosts=settings.allowed_hosts), self._deadline),
        )

    def post(self, delivery_id: str, body: bytes, timestamp: int) -> None:
        """`delivery_id` is the same when the same message is sent again. Raises NotDelivered or Refused."""
        secret = self._settings.secret.get_secret_value().encode()
        headers = {
            "Host": self._url.netloc.decode("ascii"),
            "User-Agent": "sluice",
            "Content-Type": "application/json",
            WEBHOOK: self._name,
            DELIVERY: delivery_id,
            TIMESTAMP: str(timestamp),
            SIGNATURE: signature(secret, timestamp, body),
        }
        url = self._url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        self._deadline.start(self._settings.timeout_seconds)
        try:
            with self._pool.stream("POST", target, headers=list(headers.items()), content=body) as response:
                status = response.status
        except ImageError as error:  # what the guarded network says of an address
            allowed = f"review.webhooks.{self._name}.allowed_hosts"
            raise Refused(str(error).replace("http.allowed_hosts", allowed)) from error
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise NotDelivered(f"{type(error).__name__}: {error or 'no answer'}") from error
        if 200 <= status < 300:
            return
        if status >= 500 or status in _AGAIN:
            raise NotDelivered(f"the receiver answered {status}")
        raise Refused(f"the receiver answered {status}")

    def close(self) -> None:
        self._pool.close()
