"""Text from outside without what gives access to something, for people who look at it."""

import re
from typing import Final

_HIDDEN: Final = "…"
_SECRET_NAME: Final = re.compile(r"(?i)authorization|cookie|password|secret|token|signature|api.?key")
_SECRETS: Final = (
    # credentials and query of an address, in which JSON may have escaped the slashes
    (re.compile(r"(https?:(?:\\?/){2})[^\s\"/@]*@"), rf"\1{_HIDDEN}@"),
    (re.compile(r"(https?:(?:\\?/){2}[^\s\"?#]*[?#])[^\s\"]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), rf"\1 {_HIDDEN}"),
    (re.compile(rf'("[^"]*(?:{_SECRET_NAME.pattern[4:]})[^"]*"\s*:\s*)"[^"]*"', re.IGNORECASE), rf'\1"{_HIDDEN}"'),
)


def redacted(text: str) -> str:
    """`text` without credentials and queries of addresses, tokens, and passwords in JSON."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


def redacted_header(name: str, value: str) -> str:
    """A header's value; nothing of it where the name says that it is a secret."""
    return _HIDDEN if _SECRET_NAME.search(name) else redacted(value)
