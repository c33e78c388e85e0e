"""Connections to Redis, or to fakeredis in embedded mode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.credentials import CredentialProvider
from redis.retry import Retry
from redis.sentinel import Sentinel

from worker.cache.cluster import ClusterClient
from worker.settings import RedisSettings, SettingsError

CacheClient = redis.Redis | ClusterClient
"""What the score cache and the crash markers lie on."""


class FileCredentials(CredentialProvider):
    """A user's password from a file, which is read at each connection: a rotated one needs no restart."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Raises redis.AuthenticationError when there is no such file."""
        try:
            password = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise redis.AuthenticationError(f"redis.password_file cannot be read: {error}") from error
        return (self._username, password) if self._username else (password,)


def connect(settings: RedisSettings) -> CacheClient:
    """A client that never waits longer than the setting for an answer. It connects when it is first used.

    A connection that was cut while it lay in the pool is replaced at once; a timeout is not tried again. With sentinels
    each new connection goes to the primary of that time. Raises SettingsError when the address is none.
    """
    address = _address(settings)
    options = _options(settings, address)
    if settings.cluster:
        return ClusterClient(lambda: _cluster(settings, address, options))
    return _one_server(settings, address, options)


def connect_server(settings: RedisSettings) -> redis.Redis:
    """As `connect`, for the review desk's index, which must lie on one server: its scripts change many keys at once.

    Raises SettingsError for a Redis Cluster, and when the address is none.
    """
    if settings.cluster:
        raise SettingsError(
            "redis.cluster: the review desk cannot keep its index on a Redis Cluster, because it changes many "
            "keys at once; give the desk settings with one Redis server or Sentinels (the workers may use the "
            "cluster)"
        )
    address = _address(settings)
    return _one_server(settings, address, _options(settings, address))


def _address(settings: RedisSettings) -> dict[str, Any]:
    try:
        return dict(parse_url(settings.url.get_secret_value()))  # type: ignore[no-untyped-call]
    except ValueError:
        # without the cause, whose message may hold a piece of the password
        raise SettingsError(
            "redis.url is not the address of a Redis server; write redis://HOST:PORT/DB or rediss://…"
        ) from None


def _one_server(settings: RedisSettings, address: dict[str, Any], options: dict[str, Any]) -> redis.Redis:
    if settings.sentinels and settings.sentinel_primary:
        return _primary(settings, address, options)
    client: redis.Redis = redis.Redis.from_pool(redis.ConnectionPool(**{**address, **options}))
    return client


def connect_embedded() -> redis.Redis:
    """An empty Redis inside this process (fakeredis); it ends with the process."""
    import fakeredis  # installed by the extra `embedded`; a worker beside a real Redis does without it

    client: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
    return client


def _options(settings: RedisSettings, address: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout_seconds,
        "socket_connect_timeout": settings.timeout_seconds,
        "retry": Retry(NoBackoff(), retries=1, supported_errors=(redis.ConnectionError,)),
        "protocol": 2,  # proxies and old servers know no other
    }
    names = {"ssl_cafile": "ssl_ca_certs", "ssl_certfile": "ssl_certfile", "ssl_keyfile": "ssl_keyfile"}
    for ours, theirs in names.items():
        if (path := getattr(settings, ours)) is not None:
            options[theirs] = str(path)
    if settings.password_file is not None:
        # redis-py takes a name or something that gives it, not both
        options["credential_provider"] = FileCredentials(address.pop("username", None), settings.password_file)
    return options


def _primary(settings: RedisSettings, address: Mapping[str, Any], options: dict[str, Any]) -> redis.Redis:
    """A client of the primary that the sentinels name. They are asked without a login."""
    login = {name: address[name] for name in ("db", "username", "password") if address.get(name) is not None}
    tls = {"ssl": True} if settings.url.get_secret_value().startswith("rediss://") else {}
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    certificates = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [_split(each) for each in settings.sentinels],
        sentinel_kwargs={**timeouts, **tls, **certificates},
        **{**options, **login, **tls},
    )
    client: redis.Redis = sentinel.master_for(settings.sentinel_primary)  # type: ignore[no-untyped-call]
    return client


def _cluster(settings: RedisSettings, address: Mapping[str, Any], options: dict[str, Any]) -> RedisCluster:
    """A client of the cluster that the nodes belong to."""
    login = {name: address[name] for name in ("username", "password") if address.get(name) is not None}
    tls = {"ssl": True} if settings.url.get_secret_value().startswith("rediss://") else {}
    return RedisCluster(
        startup_nodes=[ClusterNode(*_split(each)) for each in settings.cluster],  # type: ignore[no-untyped-call]
        require_full_coverage=False,  # a part of the cache is better than none
        **{**options, **login, **tls},
    )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
