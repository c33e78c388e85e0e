"""Who may ask: those with a key, or, while there are no keys, those on this machine."""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from worker.review.http.problems import Problem

LOCAL_CALLER: Final = "local"
"""The name of whoever asks while there are no keys."""
_SCHEME: Final = "bearer"
_BY_OTHERS: Final = ("origin", "forwarded", "x-forwarded-for")


def digest_of(key: str) -> str:
    """What settings keep of a key. Keys are random and long, so that a plain hash of them cannot be searched."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


class Callers:
    """Tells callers by their keys. `keys` maps each name to the digest of its key."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {name: digest.encode() for name, digest in keys.items()}

    def identify(self, request: Request) -> str:
        """The caller's name. Raises Problem: 401 without a known key, 403 for a stranger where there are no keys."""
        if not self._keys:
            _be_local(request)
            return LOCAL_CALLER
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = digest_of(key.strip() if scheme.lower() == _SCHEME else "").encode()
        # All are compared, so that the time of an answer tells nothing of how far the comparison came.
        found = [name for name, digest in self._keys.items() if hmac.compare_digest(given, digest)]
        if not found:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "key-required",
                "no key, or one that is not known; send it as `Authorization: Bearer KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found[0]


def _be_local(request: Request) -> None:
    """Lets only programs of this machine in: no other machine, nobody behind a proxy, no page in a browser (which could
    be anybody's, under a name that resolves to this address)."""
    host = request.client.host if request.client else ""
    named = _name_in(request.headers.get("host", ""))
    if not _is_loopback(host) or not _is_loopback(named) or any(name in request.headers for name in _BY_OTHERS):
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "loopback-only",
            "without keys only programs on this machine are answered, under a loopback address; to let others in, "
            "make a key with `sluice deploy key` and set gateway.keys",
        )


def _name_in(host: str) -> str:
    """The name without the port; none where there is no address within the brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
