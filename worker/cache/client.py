"""Connections to Redis, or to what stands in for it in one process."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.settings import RedisSettings


def connect(settings: RedisSettings) -> redis.Redis:
    """A client that never waits longer than the setting for an answer. It connects when it is first used.

    A connection that was cut while it lay in the pool is replaced at once; a timeout is not tried again.
    Raises ValueError when the address is none.
    """
    try:
        client: redis.Redis = redis.Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=settings.timeout_seconds,
            retry=Retry(NoBackoff(), retries=1, supported_errors=(redis.ConnectionError,)),
            protocol=2,  # proxies and old servers know no other
        )
    except ValueError:
        # without the cause, whose message may hold a piece of the password
        raise ValueError(
            "redis.url is no address of a Redis server; write redis://HOST:PORT/DB or rediss://…"
        ) from None
    return client


def connect_embedded() -> redis.Redis:
    """A Redis inside this process, empty; it ends with the process."""
    import fakeredis  # installed by the extra `embedded`; a worker beside a real Redis does without it

    client: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
    return client
