"""How large a policy file may be."""

from typing import Final

from worker.policy.errors import PolicyError

MAX_BYTES: Final = 1024 * 1024


def bounded(content: bytes, address: str) -> bytes:
    """The content; raises PolicyError when it is larger than any policy."""
    if len(content) > MAX_BYTES:
        raise PolicyError(f"{address}: has more than {MAX_BYTES} bytes, which no policy needs")
    return content
