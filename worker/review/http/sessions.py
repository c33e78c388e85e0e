"""Who is signed in. Sessions live in Redis, so that all desks share them and signing out ends them at once; a flushed
Redis only means signing in again."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from worker.review.http.roles import Role

_PREFIX: Final = "sluice:desk:session:"
_OF_USER: Final = "sluice:desk:sessions-of:"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person. `csrf` must come back with every unsafe request; `key` names the session in Redis."""

    user: str
    role: Role
    by: str
    """`local` or `oidc`."""
    expires_at: float
    csrf: str = field(repr=False)
    key: str = field(repr=False)


class Sessions:
    """Opens, finds and ends sessions. The cookie holds a random token; Redis knows only its hash."""

    def __init__(
        self,
        client: redis.Redis,
        secret: bytes,
        clock: Callable[[], float],
        *,
        lifetime_seconds: float,
        idle_seconds: float,
    ) -> None:
        self._redis = client
        self._secret = secret
        self._clock = clock
        self._lifetime = lifetime_seconds
        self._idle = idle_seconds

    def now(self) -> float:
        """Seconds since the epoch, by the clock that sessions end by."""
        return self._clock()

    def open(self, user: str, role: Role, by: str) -> tuple[str, Session]:
        """A new session and the token for its cookie."""
        token = secrets.token_urlsafe(32)
        key = _digest(token)
        expires_at = self._clock() + self._lifetime
        stored = json.dumps({"user": user, "role": role.value, "by": by, "expires_at": expires_at})
        pipeline = self._redis.pipeline()
        pipeline.set(_PREFIX + key, stored, px=self._patience(expires_at))
        pipeline.sadd(_OF_USER + user, key)
        pipeline.pexpire(_OF_USER + user, int(self._lifetime * 1000))
        pipeline.execute()
        return token, Session(user, role, by, expires_at, self.csrf(token), key)

    def find(self, token: str, *, in_use: bool = True) -> Session | None:
        """The session of a cookie, if it is still good; being `in_use` keeps it from idling out."""
        key = _digest(token)
        name = _PREFIX + key
        stored: Any = self._redis.getex(name, px=int(1000 * self._idle)) if in_use else self._redis.get(name)
        if stored is None:
            return None
        data: dict[str, Any] = json.loads(stored)
        if data["expires_at"] <= self._clock():  # Redis may keep it a little longer
            return None
        return Session(data["user"], Role(data["role"]), data["by"], data["expires_at"], self.csrf(token), key)

    def is_open(self, session: Session) -> bool:
        """Whether the session is still good; asking does not keep it from idling out."""
        return self._clock() < session.expires_at and bool(self._redis.exists(_PREFIX + session.key))

    def close(self, session: Session) -> None:
        self._redis.delete(_PREFIX + session.key)
        self._redis.srem(_OF_USER + session.user, session.key)

    @staticmethod
    def key(token: str) -> str:
        """What names the session of a cookie in Redis."""
        return _digest(token)

    def end(self, key: str) -> None:
        """Closes the session with this key, if there is one."""
        stored: Any = self._redis.getdel(_PREFIX + key)
        if stored is not None:
            self._redis.srem(_OF_USER + json.loads(stored)["user"], key)

    def close_all(self, user: str) -> None:
        """Ends every session of somebody who was removed or whose role has changed."""
        keys = self._redis.smembers(_OF_USER + user)
        names = [key.decode() if isinstance(key, bytes) else key for key in keys]
        self._redis.delete(_OF_USER + user, *(_PREFIX + name for name in names))

    def csrf(self, token: str) -> str:
        """What must come back in `X-CSRF-Token` with a request that carries this cookie."""
        return hmac.new(self._secret, b"csrf\0" + token.encode(), hashlib.sha256).hexdigest()

    def _patience(self, expires_at: float) -> int:
        return max(1, int(1000 * min(self._idle, expires_at - self._clock())))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
