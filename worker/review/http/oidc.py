"""Signing in by OpenID Connect: discovery, the authorization code flow with PKCE (RFC 7636), state and nonce.

Tokens are checked by joserfc; only asymmetric signatures are accepted.
"""

import base64
import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from worker.review.http.roles import Role
from worker.review.waiting import held
from worker.settings import OidcSettings

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
FRESH_SECONDS: Final = 3600.0
"""How long what the provider says of itself is believed."""
REFRESH_SECONDS: Final = 30.0
"""Keys are asked for again at most so often when a token names an unknown one."""
LEEWAY_SECONDS: Final = 60
WAIT_SECONDS: Final = 20.0
"""Longest wait while another request asks the provider."""
MAX_RESPONSE_BYTES: Final = 1024 * 1024
PROVIDED: Final = "oidc:"
"""What the names of the provider's users begin with, and those of local users cannot."""


class OidcError(Exception):
    """Signing in did not work. The message is for the person; it holds no token."""


class NoRole(OidcError):
    """The provider knows `user`, who may do nothing here."""

    def __init__(self, user: str) -> None:
        super().__init__("you are signed in there, but have no role at this desk; ask who runs it to give you one")
        self.user = user


@dataclass(frozen=True, slots=True)
class Flow:
    """What must be known again when the browser comes back."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class OidcIdentity:
    """Who the provider says it is."""

    user: str
    role: Role


class OidcProvider:
    """One provider. Safe to use from several threads."""

    def __init__(self, settings: OidcSettings, client: httpx.Client, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._settings = settings
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._document: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._known_at = 0.0

    @property
    def name(self) -> str:
        return self._settings.name

    def begin(self, redirect_uri: str) -> tuple[str, Flow]:
        """The address to send the browser to, and what to remember. Raises OidcError."""
        flow = Flow(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._settings.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(self._settings.scopes),
                "state": flow.state,
                "nonce": flow.nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}", flow

    def finish(self, flow: Flow, code: str, redirect_uri: str) -> OidcIdentity:
        """Trades the code for who it is. Raises OidcError."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._settings.client_id,
            "code_verifier": flow.verifier,
        }
        if self._settings.client_secret is not None:
            form["client_secret"] = self._settings.client_secret.get_secret_value()
        answer = self._ask("POST", self._endpoint("token_endpoint"), form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OidcError("the provider gave no id_token; its client must allow the scope openid")
        return self._identity(self._claims(token, flow.nonce))

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        for attempt in range(2):
            try:
                decoded = jwt.decode(token, self._key_set(again=attempt > 0), algorithms=ALGORITHMS)
                registry.validate(decoded.claims)
            except (JoseError, ValueError) as error:
                # Providers change their keys; a token signed with a new one deserves a second look.
                if attempt == 0 and self._clock() - self._known_at > REFRESH_SECONDS:
                    continue
                raise OidcError(f"the provider's token is not valid: {error}") from None
            return self._meant_for_us(decoded.claims)
        raise AssertionError("the second attempt returns or raises")

    def _meant_for_us(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """OpenID Connect Core 1.0, 3.1.3.7: a token for several audiences must name us as the authorized party."""
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._settings.client_id:
            raise OidcError("the provider's token was made for another client")
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> OidcIdentity:
        roles = claims.get(self._settings.roles_claim, [])
        theirs = [roles] if isinstance(roles, str) else roles if isinstance(roles, list) else []
        ours = [Role(self._settings.roles[role]) for role in theirs if role in self._settings.roles]
        # The name is for people and may be anybody's; the subject is who it is.
        name = claims.get("email") if claims.get("email_verified") is True else None
        user = PROVIDED + str(name or claims["sub"])[:256]
        if not ours:
            raise NoRole(user)
        return OidcIdentity(user, max(ours, key=list(Role).index))

    def _endpoint(self, name: str) -> str:
        self._discover()
        endpoint = self._document.get(name)
        if not isinstance(endpoint, str) or not _is_secure(endpoint):
            raise OidcError(f"the provider's discovery document has no usable {name}")
        return endpoint

    def _key_set(self, *, again: bool) -> KeySet:
        self._discover(again=again)
        if self._keys is None:
            raise OidcError("the provider's keys are not known")
        return self._keys

    def _discover(self, *, again: bool = False) -> None:
        with held(self._lock, WAIT_SECONDS, "asking the provider"):
            if self._keys is not None and not again and self._clock() - self._known_at < FRESH_SECONDS:
                return
            document = self._ask("GET", f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
            if document.get("issuer") != self._settings.issuer:
                raise OidcError("the provider calls itself by another name than web.oidc.issuer")
            keys_at = document.get("jwks_uri")
            if not isinstance(keys_at, str) or not _is_secure(keys_at):
                raise OidcError("the provider's discovery document has no usable jwks_uri")
            try:
                self._keys = KeySet.import_key_set(self._ask("GET", keys_at))  # type: ignore[arg-type]
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise OidcError(f"the provider's keys cannot be read: {type(error).__name__}") from None
            self._document = document
            self._known_at = self._clock()

    def _ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            with self._client.stream(method, url, data=form, headers={"accept": "application/json"}) as answer:
                body = b""
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MAX_RESPONSE_BYTES:
                        raise OidcError("the provider's answer is too long")
        except httpx.HTTPError as error:
            raise OidcError(f"the provider does not answer ({type(error).__name__}); try again in a while") from None
        try:
            data = httpx.Response(answer.status_code, content=body).json()
        except ValueError:
            data = None
        if answer.status_code != httpx.codes.OK or not isinstance(data, dict):
            # `error` is a word of RFC 6749; descriptions may repeat what was sent.
            word = data.get("error") if isinstance(data, dict) else None
            known = word if isinstance(word, str) and word.replace("_", "").isalnum() else "no reason given"
            raise OidcError(f"the provider refused: {answer.status_code}, {known[:64]}")
        return data


def _is_secure(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"})
