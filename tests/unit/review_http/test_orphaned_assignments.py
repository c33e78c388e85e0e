"""Whose items come back: those of people who were removed or may not decide any more, however that happened."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from desk_clients import PASSWORD, Clock
from fastapi import FastAPI
from fastapi.testclient import TestClient
from stand_in_desk import StandInDesk

from worker.intake.log import LogError
from worker.review.errors import NotRecorded
from worker.review.http.accounts import Accounts
from worker.review.http.orphaned_assignments import OrphanedAssignments
from worker.review.http.roles import Role
from worker.supervision import RestartPolicy, Supervisor

PATIENCE_SECONDS = 20.0
SignIn = Callable[..., TestClient]


class KeepingDesk(StandInDesk):
    """A desk with an item for each of these people. `faults` come before it does what it is told."""

    def __init__(self, *assigned: str, faults: tuple[Exception, ...] = ()) -> None:
        super().__init__()
        self.assigned = list(assigned)
        self.faults = list(faults)

    def unassign(self, assignee: str, actor: str) -> int:
        if self.faults:
            raise self.faults.pop()
        had = self.assigned.count(assignee)
        self.assigned = [name for name in self.assigned if name != assignee]
        return had + super().unassign(assignee, actor)


@pytest.fixture
def people(accounts: Accounts) -> Accounts:
    for name, role in (("ana", Role.ADMIN), ("ben", Role.REVIEWER), ("cem", Role.LEAD), ("vera", Role.VIEWER)):
        assert accounts.accept(accounts.invite(role, "test"), name, PASSWORD)
    return accounts


@contextmanager
def looking(accounts: Accounts, desk: KeepingDesk) -> Iterator[None]:
    supervisor = Supervisor(policy=RestartPolicy(first_pause=0.01))
    supervisor.start("orphaned-assignments", OrphanedAssignments(accounts, desk, look_seconds=0.02).run)
    try:
        yield
    finally:
        assert supervisor.close()


def wait_until_assigned(desk: KeepingDesk, *names: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while desk.assigned != list(names):
        assert time.monotonic() < deadline, desk.assigned
        time.sleep(0.01)


def test_who_is_removed_or_may_only_look_keeps_no_items(people: Accounts, desk: StandInDesk, sign_in: SignIn) -> None:
    admin = sign_in(Role.ADMIN, "ana")
    assert admin.patch("/v1/users/cem", json={"role": "reviewer"}).status_code == 200
    assert desk.calls == []
    assert admin.patch("/v1/users/cem", json={"role": "viewer"}).status_code == 200
    assert admin.delete("/v1/users/BEN").status_code == 204
    assert desk.calls == [("unassign", "cem", "ana"), ("unassign", "ben", "ana")]


def test_a_log_that_is_away_keeps_nobody_from_being_removed(
    people: Accounts, desk: StandInDesk, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> int:
        raise NotRecorded("the disk is full")

    monkeypatch.setattr(desk, "unassign", away)
    assert sign_in(Role.ADMIN, "ana").delete("/v1/users/ben").status_code == 204
    assert people.without_decisions() == ["ben", "vera"]


def test_items_of_people_who_left_while_the_desk_was_down_come_back_when_it_starts(people: Accounts) -> None:
    desk = KeepingDesk("ana", "ben", "cem", "oidc:eve", "somebody of another desk", "vera")
    people.remove("ben")
    with looking(people, desk):
        wait_until_assigned(desk, "ana", "cem", "oidc:eve", "somebody of another desk")
    assert ("unassign", "ben", "sluice") in desk.calls


def test_items_of_people_whom_another_process_removed_come_back(people: Accounts, tmp_path: Path) -> None:
    desk = KeepingDesk("ben", "cem")
    with looking(people, desk), closing(sqlite3.connect(tmp_path / "people.sqlite", timeout=10)) as other, other:
        other.execute("DELETE FROM users WHERE name = 'cem'")
        other.commit()
        wait_until_assigned(desk, "ben")


@pytest.mark.parametrize("fault", [NotRecorded("the disk is full"), LogError("away")])
def test_items_come_back_once_the_log_is_there_again(people: Accounts, fault: Exception) -> None:
    desk = KeepingDesk("ben", faults=(fault, fault))
    people.remove("ben")
    with looking(people, desk):
        wait_until_assigned(desk)


def test_who_comes_back_under_the_same_name_keeps_their_items(people: Accounts, clock: Clock) -> None:
    people.remove("ben")
    assert people.accept(people.invite(Role.REVIEWER, "ana"), "ben", PASSWORD)
    assert people.without_decisions() == ["vera"]


def test_a_file_that_an_older_desk_made_remembers_who_leaves_from_now_on(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT, role TEXT, created_at REAL) WITHOUT ROWID"
        )
        db.execute("CREATE TABLE invitations (token TEXT PRIMARY KEY, role TEXT, made_by TEXT, expires_at REAL)")
        db.executemany("INSERT INTO users VALUES (?, '', ?, 0)", [("ana", "admin"), ("ben", "reviewer")])
        db.execute("PRAGMA user_version = 1")
    with closing(Accounts(path, clock)) as accounts:
        assert accounts.without_decisions() == []
        assert accounts.remove("ben")
        assert accounts.without_decisions() == ["ben"]


def test_a_desk_looks_after_those_who_left_while_it_is_served(
    people: Accounts, desk: StandInDesk, app: FastAPI
) -> None:
    people.remove("ben")
    with TestClient(app):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ("unassign", "ben", "sluice") not in desk.calls:
            assert time.monotonic() < deadline, desk.calls
            time.sleep(0.01)
