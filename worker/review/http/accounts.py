"""Local users, for small teams that have no identity provider: names, hashed passwords, roles, invitations.

They are kept in one SQLite file, with servers too: many desks, or many people, sign in by OIDC, which keeps its users
elsewhere. So neither a topic nor Redis, whose index may be flushed at any time, ever holds a password's hash.
"""

import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from worker.review.http.roles import Role

PEOPLE_FILE: Final = "people.sqlite"
INVITATION_SECONDS: Final = 3 * 24 * 3600
RESET_SECONDS: Final = 24 * 3600
MIN_PASSWORD: Final = 12
MAX_PASSWORD: Final = 256
MIN_DIFFERENT: Final = 5
"""Characters that must differ in a password."""
RESERVED: Final = frozenset({"sluice", "nobody"})
"""Names that nobody may choose: in the audit topic they stand for the desk itself and for who is not signed in."""

_FORMAT = 1
_ID = 16
"""Characters of a hashed token that name it."""
_SCHEMA = """
CREATE TABLE users (
    name TEXT PRIMARY KEY, password TEXT NOT NULL, role TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE invitations (
    token TEXT PRIMARY KEY, role TEXT NOT NULL, made_by TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
"""
# Of the same format, which older desks open, too. The file itself remembers whom any process has removed, and ends the
# invitations of who is no admin any more.
_FORMER = """
CREATE TABLE IF NOT EXISTS former (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS leaving AFTER DELETE ON users
    BEGIN INSERT OR IGNORE INTO former VALUES (old.name); END;
CREATE TABLE IF NOT EXISTS resets (
    token TEXT PRIMARY KEY, name TEXT NOT NULL, made_by TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS uninviting AFTER DELETE ON users
    BEGIN DELETE FROM invitations WHERE made_by = old.name;
    DELETE FROM resets WHERE made_by = old.name OR name = old.name; END;
CREATE TRIGGER IF NOT EXISTS stepping_down AFTER UPDATE OF role ON users WHEN new.role <> 'admin'
    BEGIN DELETE FROM invitations WHERE made_by = old.name; DELETE FROM resets WHERE made_by = old.name; END;
"""


class AccountsError(Exception):
    """The file of the users cannot be used, or what was asked cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    role: Role
    created_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A link that was given out and not used yet. `id` names it; the token itself is not kept."""

    id: str
    role: Role
    made_by: str
    expires_at: float
    """Seconds since the epoch."""


class Accounts:
    """The users of one file. Safe to use from several threads."""

    def __init__(self, path: Path, clock: Callable[[], float], hasher: PasswordHasher | None = None) -> None:
        """Opens the file and makes it when there is none, readable by its owner only. Raises AccountsError."""
        self._path = path
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._lock = threading.Lock()
        # Compared with when there is no such user, so that the time of an answer does not tell who exists.
        self._nobody = self._hasher.hash(secrets.token_urlsafe())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise AccountsError(f"{path}: the users cannot be kept here: {error}") from error

    def close(self) -> None:
        self._db.close()

    def any(self) -> bool:
        """Whether there is a user."""
        with self._transaction() as db:
            return db.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None

    def all(self) -> list[User]:
        with self._transaction() as db:
            rows = db.execute("SELECT name, role, created_at FROM users ORDER BY name").fetchall()
        return [User(name, Role(role), created_at) for name, role, created_at in rows]

    def find(self, name: str) -> User | None:
        with self._transaction() as db:
            row = db.execute("SELECT name, role, created_at FROM users WHERE name = ?", (_key(name),)).fetchone()
        return User(row[0], Role(row[1]), row[2]) if row else None

    def check(self, name: str, password: str) -> User | None:
        """The user, if that is the password. Takes equally long for names that do not exist."""
        with self._transaction() as db:
            row = db.execute("SELECT password FROM users WHERE name = ?", (_key(name),)).fetchone()
        stored = row[0] if row else self._nobody
        try:
            self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return None
        if row and self._hasher.check_needs_rehash(stored):
            with self._transaction() as db:
                db.execute("UPDATE users SET password = ? WHERE name = ?", (self._hasher.hash(password), _key(name)))
        return self.find(name) if row else None

    def invite(self, role: Role, made_by: str) -> str:
        """A one-time token that makes a user of this role. Only its hash is kept."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as db:
            db.execute("DELETE FROM invitations WHERE expires_at < ?", (self._clock(),))
            db.execute(
                "INSERT INTO invitations VALUES (?, ?, ?, ?)",
                (_digest(token), role.value, made_by, self._clock() + INVITATION_SECONDS),
            )
        return token

    def invite_first(self) -> str | None:
        """The token for the first user, an admin; None when there is one. It replaces those given out before."""
        if self.any():
            return None
        with self._transaction() as db:
            db.execute("DELETE FROM invitations")
        return self.invite(Role.ADMIN, "sluice")

    def invitations(self) -> list[Invitation]:
        """Those that are good, the one that ends first in front."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT token, role, made_by, expires_at FROM invitations WHERE expires_at >= ? ORDER BY expires_at",
                (self._clock(),),
            ).fetchall()
        return [Invitation(token[:_ID], Role(role), made_by, expires) for token, role, made_by, expires in rows]

    def revoke(self, invitation_id: str) -> bool:
        """Ends an invitation; whether there was one."""
        with self._transaction() as db:
            found = db.execute("DELETE FROM invitations WHERE substr(token, 1, ?) = ?", (_ID, invitation_id))
            return found.rowcount > 0

    def revoke_of(self, maker: str) -> None:
        """Ends the invitations of somebody who is no admin any more and no user of this file."""
        with self._transaction() as db:
            db.execute("DELETE FROM invitations WHERE made_by = ?", (maker,))
            db.execute("DELETE FROM resets WHERE made_by = ?", (maker,))

    def invited_role(self, token: str) -> Role | None:
        """What the token would make of somebody, or what somebody is whose password it resets; None when it is unknown,
        used, revoked or too old."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT role FROM invitations WHERE token = :token AND expires_at >= :now UNION ALL"
                " SELECT role FROM resets JOIN users USING (name) WHERE token = :token AND expires_at >= :now",
                {"token": _digest(token), "now": self._clock()},
            ).fetchone()
        return Role(row[0]) if row else None

    def reset(self, name: str, made_by: str) -> str | None:
        """A one-time token by which the user chooses another password; None when there is no such user. It replaces
        those given out before."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as db:
            if not db.execute("SELECT 1 FROM users WHERE name = ?", (_key(name),)).fetchone():
                return None
            db.execute("DELETE FROM resets WHERE name = ? OR expires_at < ?", (_key(name), self._clock()))
            db.execute(
                "INSERT INTO resets VALUES (?, ?, ?, ?)",
                (_digest(token), _key(name), made_by, self._clock() + RESET_SECONDS),
            )
        return token

    def change_password(self, name: str, password: str) -> None:
        """Raises AccountsError when the password is too easy."""
        _check_password(name, password)
        hashed = self._hasher.hash(password)
        with self._transaction() as db:
            db.execute("UPDATE users SET password = ? WHERE name = ?", (hashed, _key(name)))
            db.execute("DELETE FROM resets WHERE name = ?", (_key(name),))

    def accept(self, token: str, name: str, password: str) -> User | None:
        """Makes the user, or gives the one whose password the token resets this one, and uses the token up; None when
        the token is no good.

        Raises AccountsError when the name is taken, reserved or not the one of the reset, or the password too easy; the
        token then stays good.
        """
        _check_password(name, password)
        hashed = self._hasher.hash(password)
        if (whose := self._whose_reset(token)) is not None:
            if whose != _key(name):
                raise AccountsError("this link is for the password of another user; type the name that it was made for")
            self.change_password(whose, password)
            return self.find(whose)
        if _key(name) in RESERVED:
            raise AccountsError(f"the name {_key(name)!r} is reserved; choose another one")
        now = self._clock()
        with self._transaction() as db:
            row = db.execute(
                "DELETE FROM invitations WHERE token = ? AND expires_at >= ? RETURNING role", (_digest(token), now)
            ).fetchone()
            if row is None:
                return None
            if db.execute("SELECT 1 FROM users WHERE name = ?", (_key(name),)).fetchone():
                raise AccountsError(f"there is a user {_key(name)!r} already; choose another name")
            db.execute("INSERT INTO users VALUES (?, ?, ?, ?)", (_key(name), hashed, row[0], now))
        return User(_key(name), Role(row[0]), now)

    def change_role(self, name: str, role: Role) -> User | None:
        """None when there is no such user. Raises AccountsError for the last admin."""
        with self._transaction() as db:
            self._keep_an_admin(db, name, role)
            db.execute("UPDATE users SET role = ? WHERE name = ?", (role.value, _key(name)))
        return self.find(name)

    def remove(self, name: str) -> bool:
        """Whether there was such a user. Raises AccountsError for the last admin."""
        with self._transaction() as db:
            self._keep_an_admin(db, name, None)
            return db.execute("DELETE FROM users WHERE name = ?", (_key(name),)).rowcount > 0

    def without_decisions(self) -> list[str]:
        """Those who are or were users here and may decide nothing now."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT name, role FROM users UNION"
                " SELECT name, NULL FROM former WHERE name NOT IN (SELECT name FROM users)"
            ).fetchall()
        return [name for name, role in rows if role is None or not Role(role).includes(Role.REVIEWER)]

    def _whose_reset(self, token: str) -> str | None:
        with self._transaction() as db:
            row = db.execute(
                "SELECT name FROM resets WHERE token = ? AND expires_at >= ?", (_digest(token), self._clock())
            ).fetchone()
        return str(row[0]) if row else None

    @staticmethod
    def _keep_an_admin(db: sqlite3.Connection, name: str, role: Role | None) -> None:
        if role is Role.ADMIN:
            return
        admins = [row[0] for row in db.execute("SELECT name FROM users WHERE role = 'admin'")]
        if admins == [_key(name)]:
            raise AccountsError(f"{_key(name)!r} is the only admin; make another one first")

    def _migrate(self) -> None:
        with self._transaction() as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_FORMAT}")
            elif found != _FORMAT:
                raise AccountsError(f"{self._path} is not a file of users of format {_FORMAT} (found {found})")
            for statement in _statements(_FORMER):
                db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; a trigger holds semicolons of its own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _check_password(name: str, password: str) -> None:
    """Raises AccountsError for one that is too short, too long or too easy."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise AccountsError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if len(set(password.strip())) < MIN_DIFFERENT:
        raise AccountsError(f"a password has at least {MIN_DIFFERENT} different characters, blanks around it aside")
    if len(_key(name)) >= MIN_DIFFERENT and _key(name) in password.casefold():
        raise AccountsError("a password does not hold the user's name")


def _key(name: str) -> str:
    return name.strip().casefold()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
