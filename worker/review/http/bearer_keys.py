"""Keys that programs send as `Authorization: Bearer KEY`. Settings hold only their digests."""

import hashlib
import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from worker.review.http.problems import Problem

_SCHEME: Final = "bearer"


def digest_of(key: str) -> str:
    """The digest of a key, as stored in the settings. A plain hash is enough, because keys are long and random."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def name_of_key(request: Request, digests: Mapping[str, str]) -> str:
    """The name of the key that the request carries. `digests` maps each name to the digest of its key.

    Raises Problem (401) without a known key.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    given = digest_of(key.strip() if scheme.lower() == _SCHEME else "").encode()
    # All keys are compared, so that the time of an answer reveals nothing about them.
    found = [name for name, digest in digests.items() if hmac.compare_digest(given, digest.encode())]
    if not found:
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "key-required",
            "no key, or an unknown one; send it as `Authorization: Bearer KEY`",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return found[0]
