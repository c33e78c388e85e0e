"""Local users: the one-time link, passwords, sessions, cookies, limits."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from desk_clients import ORIGIN, PASSWORD, Clock, browser
from fastapi import FastAPI
from fastapi.testclient import TestClient
from stand_in_desk import StandInDesk

from worker.review.http.accounts import INVITATION_SECONDS, Accounts, AccountsError
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.roles import Role
from worker.review.http.sign_in import BY_ADDRESS, GUESSES, STRANGERS


def at_the_door(client: TestClient) -> TestClient:
    """Fetches the visitor's cookie and token, as the page does first."""
    client.headers["x-csrf-token"] = client.get("/v1/sign-in").json()["csrf"]
    return client


def accept(client: TestClient, token: str, name: str = "Ana", password: str = PASSWORD) -> object:
    return at_the_door(client).post("/v1/invitations/accept", json={"token": token, "name": name, "password": password})


@pytest.fixture
def ana(accounts: Accounts) -> Accounts:
    token = accounts.invite_first()
    assert token is not None
    assert accounts.accept(token, "ana", PASSWORD) is not None
    return accounts


def test_the_first_link_makes_one_admin_and_then_nobody(accounts: Accounts, app: FastAPI, desk: StandInDesk) -> None:
    token = accounts.invite_first()
    assert token is not None
    first = browser(app)
    assert accept(first, token).json() == first.get("/v1/session").json() | {}  # type: ignore[attr-defined]
    assert first.get("/v1/session").json()["role"] == "admin"
    assert accounts.invite_first() is None
    second = accept(browser(app), token, "eve")
    assert second.status_code == 410  # type: ignore[attr-defined]
    assert [user.name for user in accounts.all()] == ["ana"]
    assert ("ana", "user-made", {"role": "admin"}) in desk.recorded


def test_a_restart_replaces_the_first_link_while_nobody_has_used_it(accounts: Accounts, app: FastAPI) -> None:
    old, new = accounts.invite_first(), accounts.invite_first()
    assert old is not None
    assert new is not None
    assert accept(browser(app), old).status_code == 410  # type: ignore[attr-defined]
    assert accept(browser(app), new).status_code == 200  # type: ignore[attr-defined]


def test_an_invitation_grows_old(accounts: Accounts, clock: Clock) -> None:
    token = accounts.invite(Role.LEAD, "ana")
    assert accounts.invited_role(token) is Role.LEAD
    clock.now += INVITATION_SECONDS + 1
    assert accounts.invited_role(token) is None
    assert accounts.accept(token, "ben", PASSWORD) is None


def test_a_short_password_leaves_the_invitation_good(accounts: Accounts) -> None:
    token = accounts.invite(Role.REVIEWER, "ana")
    with pytest.raises(AccountsError, match="12 to 256"):
        accounts.accept(token, "ben", "too short")
    assert accounts.accept(token, "ben", PASSWORD) is not None


def test_a_taken_name_leaves_the_invitation_good(ana: Accounts) -> None:
    token = ana.invite(Role.REVIEWER, "ana")
    with pytest.raises(AccountsError, match="already"):
        ana.accept(token, " ANA", PASSWORD)
    assert ana.accept(token, "ben", PASSWORD) is not None


def test_neither_passwords_nor_tokens_are_kept_as_they_are(ana: Accounts, tmp_path: Path) -> None:
    token = ana.invite(Role.REVIEWER, "ana")
    with sqlite3.connect(tmp_path / "people.sqlite") as db:
        kept = repr(db.execute("SELECT * FROM users").fetchall() + db.execute("SELECT * FROM invitations").fetchall())
    assert "$argon2id$" in kept
    assert PASSWORD not in kept
    assert token not in kept


def test_signing_in_needs_the_right_password_and_tells_nothing_else(ana: Accounts, client: TestClient) -> None:
    at_the_door(client)
    wrong = client.post("/v1/sign-in", json={"name": "ana", "password": "wrong wrong wrong"})
    unknown = client.post("/v1/sign-in", json={"name": "nobody", "password": "wrong wrong wrong"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert client.post("/v1/sign-in", json={"name": " Ana ", "password": PASSWORD}).status_code == 200
    assert client.get("/v1/session").json()["user"] == "ana"


def test_what_was_typed_is_not_written_down(ana: Accounts, client: TestClient, desk: StandInDesk) -> None:
    at_the_door(client).post("/v1/sign-in", json={"name": "hunter2-typed-as-name", "password": "hunter2"})
    assert [(actor, action) for actor, action, _ in desk.recorded] == [("nobody", "sign-in-refused")]
    assert "hunter2" not in repr(desk.recorded)


def guess(app: FastAPI, address: str, password: str = "wrong") -> httpx.Response:
    client = at_the_door(TestClient(app, base_url=ORIGIN, client=(address, 50000)))
    return client.post("/v1/sign-in", json={"name": "ana", "password": password})


def test_who_guesses_a_password_waits_longer_each_time_and_locks_out_nobody_elsewhere(
    ana: Accounts, app: FastAPI, context: AppContext
) -> None:
    waits = []
    for _ in range(GUESSES.free + 1):
        last = guess(app, "198.51.100.7")
    assert last.status_code == 429
    for _ in range(4):
        for key in context.redis.scan_iter(match="sluice:desk:attempts:*:lock"):
            context.redis.delete(key)  # as if the time had gone by
        assert guess(app, "198.51.100.7").status_code == 401
        stopped = guess(app, "198.51.100.7", PASSWORD)
        assert stopped.status_code == 429  # the right password, too: it must not stand out
        waits.append(int(stopped.headers["retry-after"]))
    assert waits == sorted(waits)
    assert waits[-1] >= 8 * waits[0] / 2
    assert waits[-1] <= GUESSES.longest_seconds
    assert guess(app, "203.0.113.1", PASSWORD).status_code == 200


def test_guesses_from_many_addresses_are_slowed_down_and_the_user_s_own_address_is_not(
    ana: Accounts, app: FastAPI
) -> None:
    assert guess(app, "203.0.113.1", PASSWORD).status_code == 200
    statuses = {guess(app, f"198.51.100.{n}").status_code for n in range(STRANGERS.free - 1)}
    assert statuses == {401}
    assert guess(app, "198.51.100.250").status_code == 429
    assert guess(app, "203.0.113.1", PASSWORD).status_code == 200


def test_many_guesses_at_the_same_moment_are_no_way_round(ana: Accounts, app: FastAPI) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = [r.status_code for r in pool.map(lambda _: guess(app, "198.51.100.7"), range(24))]
    assert statuses.count(401) <= GUESSES.free


def test_guessing_names_is_stopped_by_address(app: FastAPI) -> None:
    client = at_the_door(browser(app))
    statuses = [
        client.post("/v1/invitations/check", json={"token": f"guess-{number}"}).status_code
        for number in range(BY_ADDRESS.most + 1)
    ]
    assert set(statuses[:-1]) == {410}
    assert statuses[-1] == 429


def test_a_whole_office_signs_in_from_one_address(ana: Accounts, app: FastAPI) -> None:
    client = at_the_door(browser(app))
    for _ in range(BY_ADDRESS.most + 5):
        assert client.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD}).status_code == 200


def test_signing_in_without_the_visitor_s_token_is_refused(ana: Accounts, client: TestClient) -> None:
    answer = client.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:sluice:problem:csrf")


def test_signing_out_ends_the_session_for_a_copied_cookie_too(ana: Accounts, app: FastAPI, context: AppContext) -> None:
    client, copy = at_the_door(browser(app)), browser(app)
    me = client.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD}).json()
    copy.cookies.set(context.session_cookie, client.cookies[context.session_cookie], domain="127.0.0.1")
    assert copy.get("/v1/session").status_code == 200
    assert client.delete("/v1/session", headers={"x-csrf-token": me["csrf"]}).status_code == 204
    assert copy.get("/v1/session").status_code == 401


def test_a_page_that_asks_by_itself_does_not_keep_its_session(
    sign_in: Callable[..., TestClient], context: AppContext
) -> None:
    client = sign_in()
    (key,) = context.redis.scan_iter(match="sluice:desk:session:*")
    context.redis.pexpire(key, 5_000)
    assert client.get("/v1/queues", headers={"x-unattended": "1"}).status_code == 200
    assert context.redis.pttl(key) <= 5_000
    assert client.get("/v1/queues").status_code == 200
    assert context.redis.pttl(key) > 500_000


def test_a_session_idles_out_and_ends_after_its_hours(context: AppContext, clock: Clock) -> None:
    token, _ = context.sessions.open("ana", Role.REVIEWER, "local")
    clock.now += 3599
    assert context.sessions.find(token) is not None
    clock.now += 2
    assert context.sessions.find(token) is None


def test_the_cookie_is_hidden_from_scripts_and_other_sites(ana: Accounts, client: TestClient) -> None:
    answer = at_the_door(client).post("/v1/sign-in", json={"name": "ana", "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie  # loopback


def test_behind_https_the_cookie_is_secure_and_bound_to_the_host(
    make_context: Callable[..., AppContext], ana: Accounts
) -> None:
    origin = "https://desk.example.com"
    app = build_app(make_context(origin=origin))
    client = at_the_door(TestClient(app, base_url=origin))
    answer = client.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD})
    assert answer.headers["set-cookie"].startswith("__Host-sluice-session=")
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_an_admin_invites_changes_roles_and_removes(
    ana: Accounts, app: FastAPI, sign_in: Callable[..., TestClient]
) -> None:
    admin = sign_in(Role.ADMIN, "ana")
    link = admin.post("/v1/invitations", json={"role": "reviewer"}).json()["link"]
    assert link.startswith("http://127.0.0.1:8420/#invitation=")
    ben = browser(app)
    assert accept(ben, link.partition("=")[2], "ben").status_code == 200  # type: ignore[attr-defined]
    assert [user["name"] for user in admin.get("/v1/users").json()] == ["ana", "ben"]
    assert admin.patch("/v1/users/ben", json={"role": "lead"}).json()["role"] == "lead"
    assert ben.get("/v1/session").status_code == 401  # signs in again, with the new role
    assert admin.delete("/v1/users/ben").status_code == 204
    assert admin.delete("/v1/users/ben").status_code == 404


def test_the_last_admin_can_neither_go_nor_step_down(ana: Accounts, sign_in: Callable[..., TestClient]) -> None:
    admin = sign_in(Role.ADMIN, "ana")
    assert admin.delete("/v1/users/ana").status_code == 409
    assert admin.patch("/v1/users/ana", json={"role": "viewer"}).status_code == 409


def test_a_file_of_a_newer_format_is_refused_by_name(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "newer.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(AccountsError, match=r"newer\.sqlite is not a file of users of format 1"):
        Accounts(path, clock)


def test_an_invitation_ends_with_the_role_of_who_made_it(ana: Accounts, sign_in: Callable[..., TestClient]) -> None:
    assert ana.accept(ana.invite(Role.ADMIN, "ana"), "mallory", PASSWORD)
    mine = ana.invite(Role.REVIEWER, "ana")
    left, demoted = ana.invite(Role.ADMIN, "mallory"), None
    assert sign_in(Role.ADMIN, "ana").delete("/v1/users/mallory").status_code == 204
    assert ana.invited_role(left) is None
    assert ana.accept(left, "eve", PASSWORD) is None
    assert ana.accept(ana.invite(Role.ADMIN, "ana"), "trent", PASSWORD)
    demoted = ana.invite(Role.ADMIN, "trent")
    assert ana.change_role("trent", Role.LEAD)
    assert ana.invited_role(demoted) is None
    assert ana.invited_role(mine) is Role.REVIEWER


def test_invitations_are_listed_and_revoked(ana: Accounts, sign_in: Callable[..., TestClient]) -> None:
    admin = sign_in(Role.ADMIN, "ana")
    token = admin.post("/v1/invitations", json={"role": "lead"}).json()["link"].partition("=")[2]
    (listed,) = admin.get("/v1/invitations").json()
    assert (listed["role"], listed["made_by"]) == ("lead", "ana")
    assert token not in str(listed)
    assert sign_in(Role.LEAD, "ben").get("/v1/invitations").status_code == 403
    assert admin.delete(f"/v1/invitations/{listed['id']}").status_code == 204
    assert admin.delete(f"/v1/invitations/{listed['id']}").status_code == 404
    assert admin.get("/v1/invitations").json() == []
    assert ana.accept(token, "eve", PASSWORD) is None


def test_signing_in_again_ends_the_old_session(ana: Accounts, app: FastAPI, context: AppContext) -> None:
    client, copy = at_the_door(browser(app)), browser(app)
    client.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD})
    copy.cookies.set(context.session_cookie, client.cookies[context.session_cookie], domain="127.0.0.1")
    assert copy.get("/v1/session").status_code == 200
    assert client.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD}).status_code == 200
    assert copy.get("/v1/session").status_code == 401
    assert client.get("/v1/session").status_code == 200


OTHER = "another battery staple"


def test_a_user_changes_the_password_and_all_other_sessions_end(
    ana: Accounts, app: FastAPI, context: AppContext
) -> None:
    client, elsewhere = at_the_door(browser(app)), at_the_door(browser(app))
    for each in (client, elsewhere):
        me = each.post("/v1/sign-in", json={"name": "ana", "password": PASSWORD}).json()
        each.headers["x-csrf-token"] = me["csrf"]
    wrong = client.put("/v1/session/password", json={"password": "wrong", "new_password": OTHER})
    assert wrong.status_code == 403
    easy = client.put("/v1/session/password", json={"password": PASSWORD, "new_password": "aaaaaaaaaaaa"})
    assert easy.status_code == 409
    changed = client.put("/v1/session/password", json={"password": PASSWORD, "new_password": OTHER})
    assert changed.status_code == 200
    assert client.get("/v1/session").status_code == 200
    assert elsewhere.get("/v1/session").status_code == 401
    assert ana.check("ana", PASSWORD) is None
    assert ana.check("ana", OTHER) is not None


def test_an_admin_lets_a_user_choose_another_password(
    ana: Accounts, app: FastAPI, sign_in: Callable[..., TestClient], context: AppContext
) -> None:
    assert ana.accept(ana.invite(Role.REVIEWER, "ana"), "ben", PASSWORD)
    bens = sign_in(Role.REVIEWER, "ben")
    admin = sign_in(Role.ADMIN, "ana")
    assert admin.post("/v1/users/nobody-here/password-reset").status_code == 404
    link = admin.post("/v1/users/ben/password-reset").json()["link"]
    assert ana.check("ben", PASSWORD) is not None  # until it is used
    token = link.partition("=")[2]
    client = at_the_door(browser(app))
    assert client.post("/v1/invitations/check", json={"token": token}).json() == {"role": "reviewer"}
    other = {"token": token, "name": "ana", "password": OTHER}
    assert client.post("/v1/invitations/accept", json=other).status_code == 409
    assert client.post("/v1/invitations/accept", json={**other, "name": "ben"}).json()["user"] == "ben"
    assert client.post("/v1/invitations/accept", json={**other, "name": "ben"}).status_code == 410
    assert bens.get("/v1/session").status_code == 401
    assert ana.check("ben", OTHER) is not None
    assert ana.check("ben", PASSWORD) is None


@pytest.mark.parametrize("name", ["sluice", "Nobody"])
def test_names_that_stand_for_the_desk_itself_cannot_be_taken(ana: Accounts, name: str) -> None:
    with pytest.raises(AccountsError, match="reserved"):
        ana.accept(ana.invite(Role.REVIEWER, "ana"), name, PASSWORD)


@pytest.mark.parametrize("password", [" " * 12, "abababababab", "benjamin-benjamin"])
def test_a_password_that_is_easily_guessed_is_refused(ana: Accounts, password: str) -> None:
    with pytest.raises(AccountsError, match="password"):
        ana.accept(ana.invite(Role.REVIEWER, "ana"), "benjamin", password)
