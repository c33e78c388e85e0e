"""Settings of the HTTP servers: the desk, sign-in and the gateway."""

import re
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, StringConstraints, field_validator

from schemas.base import Digest, Name
from worker.settings.section import Section


class OidcSettings(Section):
    """Sign-in at the desk through an OpenID Connect provider."""

    issuer: str
    """The provider's issuer URL."""
    client_id: str
    """The OAuth client id."""
    client_secret: SecretStr | None = None
    """The client secret. Default: a public client with PKCE only."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "single sign-on"
    """The provider's name on the sign-in button."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """Scopes to ask for."""
    roles_claim: str = "roles"
    """The claim that holds a user's roles or groups."""
    roles: dict[str, Literal["viewer", "reviewer", "lead", "admin"]] = Field(default_factory=dict)
    """Values of that claim, and the desk's role for each. A user with none of them cannot sign in."""

    @field_validator("issuer")
    @classmethod
    def _is_secure(cls, issuer: str) -> str:
        if not re.fullmatch(r"https://[^\s?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s?#]*)?", issuer):
            raise ValueError("must be an https:// address (http:// only on loopback) without query or fragment")
        return issuer


class ApiKeySettings(Section):
    """A program that reads from the desk's API. It sees the items and verdicts of all tenants."""

    digest: Digest
    """The SHA-256 of the program's key. `sluice deploy key` makes both."""
    scopes: Annotated[tuple[Literal["items:read", "statistics:read", "verdicts:read"], ...], Field(min_length=1)]
    """What the program may read."""
    requests_per_minute: PositiveInt = 600
    """Maximum requests per minute at all desks together. Beyond that it gets 429."""


class WebSettings(Section):
    """The web server of the review desk."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8420
    """The port to listen on; 0 takes any free one."""
    public_url: str | None = None
    """The desk's address as people type it, when it is behind a proxy: `http(s)://host[:port]`."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For header is trusted."""
    local_users: bool = True
    """Whether users with a password at this desk may sign in."""
    secret_key: Annotated[SecretStr, Field(min_length=32)] | None = None
    """The key that signs image links. Default: made once and stored beside the local users."""
    session_hours: PositiveFloat = 12.0
    """A session ends after this time."""
    idle_minutes: PositiveFloat = 60.0
    """A session ends when it is not used for this long."""
    labels: Annotated[tuple[Name, ...], Field(max_length=9)] = (
        "artefacts",
        "anatomy",
        "blurry",
        "off-prompt",
        "garbled-text",
        "unsafe",
    )
    """Reasons that reviewers can give with the keys 1 to 9."""
    decode_threads: PositiveInt = 4
    """Threads that decode images for the page."""
    cache_bytes: PositiveInt = 128 * 1024 * 1024
    """Memory for resized images."""
    oidc: OidcSettings | None = None
    """Default: no single sign-on."""
    api_keys: dict[Name, ApiKeySettings] = Field(default_factory=dict)

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+", url):
            raise ValueError("must be http(s)://host[:port], without credentials, path or trailing slash")
        return url


class GatewaySettings(Section):
    """The HTTP API for callers that cannot use Kafka. The limits are per replica."""

    keys: dict[Name, Digest] = Field(default_factory=dict)
    """Callers: a name, and the SHA-256 of the caller's key. `sluice deploy key` makes a key. Default: only callers on
    loopback are answered."""
    max_requests: PositiveInt = 64
    """Maximum requests in progress. Beyond that a caller gets 503 and the time after which to retry."""
    max_requests_a_caller: PositiveInt = 32
    """Maximum requests in progress of one caller. Beyond that it gets 429 and the time after which to retry."""
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    """Maximum bytes of all request bodies together. One body may be up to a third larger than `images.max_bytes`
    (base64), plus 1 MiB."""
    timeout_seconds: PositiveFloat = 30.0
    """Timeout of a request."""
