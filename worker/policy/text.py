"""A policy file's bytes, as they were read, with the digest that names them."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PolicyText:
    """The content of a policy file. `digest` identifies these exact bytes: a writer names the digest that it replaces.

    `shipped`: this is the default policy that ships, because no policy was saved yet. `etag`: the object store's own
    version identifier, where the file is in one.
    """

    content: bytes = field(repr=False)
    shipped: bool = False
    etag: str | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", f"sha256:{hashlib.sha256(self.content).hexdigest()}")
