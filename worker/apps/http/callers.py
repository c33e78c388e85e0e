"""Authenticates callers by key or, without keys, allows only callers on this machine."""

import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from worker.review.http.bearer_keys import name_of_key
from worker.review.http.problems import Problem

LOCAL_CALLER: Final = "local"
"""The name of all callers when there are no keys."""
_BY_OTHERS: Final = ("origin", "forwarded", "x-forwarded-for")


class Callers:
    """Identifies callers by their keys. `keys` maps each name to the digest of its key."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)

    def identify(self, request: Request) -> str:
        """The caller's name. Raises Problem: 401 without a known key; 403 for a remote caller when there are no
        keys.
        """
        if not self._keys:
            _be_local(request)
            return LOCAL_CALLER
        return name_of_key(request, self._keys)


def _be_local(request: Request) -> None:
    """Allows only programs on this machine: no other machine, no proxy, and no page in a browser (which could be any
    site whose name resolves to this address).
    """
    host = request.client.host if request.client else ""
    named = _name_in(request.headers.get("host", ""))
    if not _is_loopback(host) or not _is_loopback(named) or any(name in request.headers for name in _BY_OTHERS):
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "loopback-only",
            "without keys only programs on this machine may call, by a loopback address; to allow others, make a "
            "key with `sluice deploy key` and set gateway.keys",
        )


def _name_in(host: str) -> str:
    """The host without the port; empty if the brackets hold no valid address."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
