"""The HTTP doors: the desk's page, who may sign in there, and the gateway."""

import re
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, StringConstraints, field_validator

from schemas.base import Digest, Name
from worker.settings.section import Section


class OidcSettings(Section):
    """A provider of OpenID Connect that signs people in. `roles` maps values of its claim `roles_claim` to the desk's
    roles; who has none of them stays outside."""

    issuer: str
    client_id: str
    client_secret: SecretStr | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "single sign-on"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    roles_claim: str = "roles"
    roles: dict[str, Literal["viewer", "reviewer", "lead", "admin"]] = Field(default_factory=dict)

    @field_validator("issuer")
    @classmethod
    def _is_secure(cls, issuer: str) -> str:
        if not re.fullmatch(r"https://[^\s?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s?#]*)?", issuer):
            raise ValueError("must be an https:// address (http:// only on loopback) without query or fragment")
        return issuer


class ApiKeySettings(Section):
    """A program that reads from the desk's API. `digest` is the SHA-256 of its key (`sluice deploy key` makes both). A
    key that reads items or verdicts sees those of every tenant."""

    digest: Digest
    scopes: Annotated[tuple[Literal["items:read", "statistics:read", "verdicts:read"], ...], Field(min_length=1)]
    requests_per_minute: PositiveInt = 600
    """Of all desks together; further ones are answered 429."""


class WebSettings(Section):
    """The desk's page and its HTTP door. Behind a proxy, `public_url` is what people type, and `trusted_proxies` are
    the proxies whose X-Forwarded-For counts. `secret_key` signs image links; replicas must share it; absent: made once
    and kept beside the local users."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8420
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    local_users: bool = True
    secret_key: Annotated[SecretStr, Field(min_length=32)] | None = None
    session_hours: PositiveFloat = 12.0
    idle_minutes: PositiveFloat = 60.0
    labels: Annotated[tuple[Name, ...], Field(max_length=9)] = (
        "artefacts",
        "anatomy",
        "blurry",
        "off-prompt",
        "garbled-text",
        "unsafe",
    )
    """Reasons that reviewers can give, by the keys 1 to 9."""
    decode_threads: PositiveInt = 4
    cache_bytes: PositiveInt = 128 * 1024 * 1024
    oidc: OidcSettings | None = None
    api_keys: dict[Name, ApiKeySettings] = Field(default_factory=dict)

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+", url):
            raise ValueError("must be http(s)://host[:port], without credentials, path or a slash at its end")
        return url


class GatewaySettings(Section):
    """The HTTP door for those who cannot use Kafka. `keys` are the callers: a name, and the SHA-256 of their key
    (`sluice deploy key` makes one); without any, only callers on loopback are answered.

    Limits are a replica's. A caller with more requests under way than its share is told 429, one who finds the replica
    full 503; both answers say when to try again.
    """

    keys: dict[Name, Digest] = Field(default_factory=dict)
    max_requests: PositiveInt = 64
    max_requests_a_caller: PositiveInt = 32
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    """Of bodies, together. One is at most a third larger than `images.max_bytes`, for base64, and 1 MiB."""
    timeout_seconds: PositiveFloat = 30.0
