"""Signing in by a provider: a small real one on loopback, and all the ways it can lie."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from desk_clients import ORIGIN, browser
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from stand_in_desk import StandInDesk

from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.oidc import OidcProvider
from worker.settings import OidcSettings

CALLBACK = f"{ORIGIN}/v1/sign-in/oidc/callback"


@dataclass
class Provider:
    """An OpenID provider that signs real tokens. `claims` change what it says, `key` what it signs with."""

    issuer: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first"}))
    published: list[RSAKey] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    questions: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens_given: int = 0

    def let_in(self, address: str) -> str:
        """What the provider's own page does once somebody has signed in there: the code."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.questions)}"
        self.questions[code] = query
        return code

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        question = self.questions.pop(form["code"], None)
        if question is None:
            return 400, {"error": "invalid_grant"}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if challenge.decode() != question["code_challenge"] or form["redirect_uri"] != question["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if form.get("client_secret") != "the client's secret":
            return 401, {"error": "invalid_client"}
        claims = {
            "iss": self.issuer,
            "sub": "12345",
            "aud": question["client_id"],
            "exp": int(time.time()) + 60,
            "iat": int(time.time()),
            "nonce": question["nonce"],
            "email": "ana@example.com",
            "email_verified": True,
            "roles": ["moderators"],
        } | self.claims
        self.tokens_given += 1
        header = {"alg": self.algorithm, "kid": self.key.kid}
        signed = jwt.encode(header, claims, self.key, algorithms=[self.algorithm])
        return 200, {"id_token": signed, "access_token": "a", "token_type": "Bearer"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    provider.published = [provider.key]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/.well-known/openid-configuration":
                self.answer(
                    200,
                    {
                        "issuer": provider.issuer,
                        "authorization_endpoint": f"{provider.issuer}/authorize",
                        "token_endpoint": f"{provider.issuer}/token",
                        "jwks_uri": f"{provider.issuer}/keys",
                    },
                )
            elif self.path == "/keys":
                self.answer(200, KeySet(list(provider.published)).as_dict())
            else:
                self.answer(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self.answer(*provider.token({name: values[0] for name, values in parse_qs(body).items()}))

        def answer(self, status: int, data: dict[str, Any]) -> None:
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield provider
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def oidc_app(make_context: Callable[..., AppContext], provider: Provider) -> Iterator[FastAPI]:
    settings = OidcSettings(
        issuer=provider.issuer,
        client_id="sluice",
        client_secret="the client's secret",  # type: ignore[arg-type]
        roles={"moderators": "reviewer", "leads": "lead", "auditors": "viewer"},
    )
    with httpx.Client(timeout=5.0) as client:
        yield build_app(make_context(oidc=OidcProvider(settings, client, time.time)))


def walk(client: TestClient, provider: Provider) -> httpx.Response:
    """Out to the provider and back, as a browser goes."""
    out = client.get("/v1/sign-in/oidc")
    assert out.status_code == 303
    address = out.headers["location"]
    state = parse_qs(urlsplit(address).query)["state"][0]
    back = client.get("/v1/sign-in/oidc/callback", params={"code": provider.let_in(address), "state": state})
    assert back.status_code == 303
    return back  # type: ignore[return-value]


def reason(client: TestClient) -> str:
    return str(client.get("/v1/sign-in").json()["failure"])


def test_somebody_with_a_role_there_is_signed_in_here(oidc_app: FastAPI, provider: Provider) -> None:
    client = browser(oidc_app)
    assert walk(client, provider).headers["location"] == "/"
    me = client.get("/v1/session").json()
    assert (me["user"], me["role"], me["by"]) == ("oidc:ana@example.com", "reviewer", "oidc")


def test_the_highest_of_several_roles_counts(oidc_app: FastAPI, provider: Provider) -> None:
    provider.claims = {"roles": ["moderators", "leads", "others"]}
    client = browser(oidc_app)
    walk(client, provider)
    assert client.get("/v1/session").json()["role"] == "lead"


@pytest.mark.parametrize(
    ("roles", "told"), [(["moderators"], []), (["auditors"], ["oidc:ana@example.com"]), ([], ["oidc:ana@example.com"])]
)
def test_who_may_decide_no_more_keeps_no_items_once_the_provider_says_so(
    oidc_app: FastAPI, provider: Provider, desk: StandInDesk, roles: list[str], told: list[str]
) -> None:
    provider.claims = {"roles": roles}
    walk(browser(oidc_app), provider)
    assert desk.calls == [("unassign", user, "sluice") for user in told]


def test_an_email_that_nobody_verified_names_nobody(oidc_app: FastAPI, provider: Provider) -> None:
    provider.claims = {"email": "boss@example.com", "email_verified": False}
    client = browser(oidc_app)
    walk(client, provider)
    assert client.get("/v1/session").json()["user"] == "oidc:12345"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"roles": ["others"]}, "no role at this desk"),
        ({"roles": None}, "no role at this desk"),
        ({"iss": "https://elsewhere.example"}, "not valid"),
        ({"aud": "another-client"}, "not valid"),
        ({"aud": ["sluice", "another"], "azp": "another"}, "another client"),
        ({"exp": 1_000_000_000}, "not valid"),
        ({"nonce": "replayed"}, "not valid"),
        ({"sub": None}, "not valid"),
    ],
)
def test_a_token_that_does_not_fit_lets_nobody_in(
    oidc_app: FastAPI, provider: Provider, claims: dict[str, Any], said: str
) -> None:
    provider.claims = claims
    client = browser(oidc_app)
    assert walk(client, provider).headers["location"] == "/#sign-in-failed"
    assert provider.tokens_given == 1
    assert said in reason(client)
    assert client.get("/v1/session").status_code == 401


def test_a_token_that_somebody_else_signed_lets_nobody_in(oidc_app: FastAPI, provider: Provider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "first"})
    client = browser(oidc_app)
    walk(client, provider)
    assert "not valid" in reason(client)
    assert client.get("/v1/session").status_code == 401


def test_new_keys_of_the_provider_are_found(make_context: Callable[..., AppContext], provider: Provider) -> None:
    now = [time.time()]
    settings = OidcSettings(
        issuer=provider.issuer,
        client_id="sluice",
        client_secret="the client's secret",  # type: ignore[arg-type]
        roles={"moderators": "viewer"},
    )
    with httpx.Client(timeout=5.0) as http:
        app = build_app(make_context(oidc=OidcProvider(settings, http, lambda: now[0])))
        walk(browser(app), provider)
        provider.key = RSAKey.generate_key(2048, {"kid": "second"})
        provider.published = [provider.key]
        now[0] += 31
        client = browser(app)
        walk(client, provider)
        assert client.get("/v1/session").json()["role"] == "viewer"


def test_an_answer_to_somebody_else_s_question_is_refused(oidc_app: FastAPI, provider: Provider) -> None:
    """Login CSRF: the attacker's own code and state, slipped to the victim's browser."""
    attacker, victim = browser(oidc_app), browser(oidc_app)
    address = attacker.get("/v1/sign-in/oidc").headers["location"]
    state = parse_qs(urlsplit(address).query)["state"][0]
    answer = {"code": provider.let_in(address), "state": state}
    victim.get("/v1/sign-in/oidc/callback", params=answer)
    assert victim.get("/v1/session").status_code == 401
    victim.get("/v1/sign-in/oidc")
    victim.get("/v1/sign-in/oidc/callback", params=answer)
    assert "does not belong" in reason(victim)
    assert provider.tokens_given == 0


def test_a_code_is_good_once(oidc_app: FastAPI, provider: Provider) -> None:
    client = browser(oidc_app)
    address = client.get("/v1/sign-in/oidc").headers["location"]
    state = parse_qs(urlsplit(address).query)["state"][0]
    answer = {"code": provider.let_in(address), "state": state}
    assert client.get("/v1/sign-in/oidc/callback", params=answer).headers["location"] == "/"
    assert client.get("/v1/sign-in/oidc/callback", params=answer).headers["location"] == "/#sign-in-failed"


def test_a_provider_that_says_no_is_told_to_the_person(oidc_app: FastAPI, provider: Provider) -> None:
    client = browser(oidc_app)
    client.get("/v1/sign-in/oidc")
    client.get("/v1/sign-in/oidc/callback", params={"error": "access_denied", "state": "x"})
    assert "did not let you in" in reason(client)
    assert client.get("/v1/sign-in").json()["failure"] is None  # told once


def test_a_provider_that_calls_itself_otherwise_is_not_believed(oidc_app: FastAPI, provider: Provider) -> None:
    issuer, provider.issuer = provider.issuer, "https://elsewhere.example"
    client = browser(oidc_app)
    assert client.get("/v1/sign-in/oidc").headers["location"] == "/#sign-in-failed"
    assert "another name" in reason(client)
    provider.issuer = issuer


def test_a_provider_that_is_away_is_named_as_away(make_context: Callable[..., AppContext]) -> None:
    settings = OidcSettings(issuer="http://127.0.0.1:1", client_id="sluice")
    with httpx.Client(timeout=2.0) as http:
        client = browser(build_app(make_context(oidc=OidcProvider(settings, http, time.time))))
        assert client.get("/v1/sign-in/oidc").headers["location"] == "/#sign-in-failed"
        assert "does not answer" in reason(client)


def test_where_no_provider_is_set_there_is_no_way_to_it(client: TestClient) -> None:
    assert client.get("/v1/sign-in").json()["oidc"] is None
    assert client.get("/v1/sign-in/oidc").status_code == 404
