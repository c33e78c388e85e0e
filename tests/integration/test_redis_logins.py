"""Redis with TLS, users, passwords that are rotated, and behind a sentinel."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.dev.secure_redis import SentinelServer, TlsRedisServer
from ops.dev.servers import RedisServer
from worker.cache.client import connect
from worker.settings import RedisSettings, load_settings

pytestmark = pytest.mark.integration


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[TlsRedisServer]:
    server = TlsRedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def _settings(**values: object) -> RedisSettings:
    return RedisSettings.model_validate({"timeout_seconds": 5.0, **values})


def test_tls_with_an_authority_of_ones_own_and_a_user_whose_password_is_rotated(
    tls_redis: TlsRedisServer, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("first\n")
    with tls_redis.client() as admin:
        user = {"enabled": True, "keys": ["sluice:*"], "categories": ["+@all"]}
        admin.acl_setuser("worker", passwords=["+first"], **user)
        url = f"rediss://worker@127.0.0.1:{tls_redis.port}/0"
        client = connect(_settings(url=url, ssl_cafile=str(tls_redis.ca), password_file=str(password)))
        client.set("sluice:key", b"value")
        assert client.get("sluice:key") == b"value"
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("another:key")

        admin.acl_setuser("worker", reset_passwords=True, passwords=["+second"], **user)
        password.write_text("second\n")
        admin.client_kill_filter(user="worker")
        assert client.get("sluice:key") == b"value", "the same client logs in with the new password"

        without = connect(_settings(url=url, password_file=str(password)))
        with pytest.raises(redis.ConnectionError, match="certificate"):
            without.ping()


def test_a_missing_password_file_is_named(tls_redis: TlsRedisServer, tmp_path: Path) -> None:
    settings = _settings(url=tls_redis.url, ssl_cafile=str(tls_redis.ca), password_file=str(tmp_path / "missing"))
    with pytest.raises(redis.AuthenticationError, match=r"redis\.password_file cannot be read"):
        connect(settings).ping()


def test_sentinels_name_the_primary(redis_server: RedisServer, tmp_path: Path) -> None:
    sentinel = SentinelServer(tmp_path / "sentinel", redis_server)
    sentinel.start()
    try:
        settings = _settings(
            url="redis://not-used/3", sentinels=[sentinel.address], sentinel_primary=SentinelServer.primary_name
        )
        client = connect(settings)
        client.set("key", b"value")
        with redis.Redis(port=redis_server.port, db=3) as direct:
            assert direct.get("key") == b"value"
        client.close()
    finally:
        sentinel.stop()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "redis://h/0", "ssl_cafile": "ca.pem"}, "url does not begin with rediss://"),
        ({"url": "rediss://h/0", "ssl_certfile": "c.pem"}, "must be set together"),
        ({"url": "redis://h/0", "sentinels": ["h:26379"]}, "sentinels and sentinel_primary must be set together"),
        ({"url": "redis://u:p@h/0", "password_file": "f"}, "remove one"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        _settings(**settings)


def test_files_count_from_the_folder_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "sluice.yaml"
    file.write_text(
        "redis: {url: 'rediss://h/0', password_file: secrets/redis, ssl_cafile: ca.pem}\ns3: {ca_file: s3.pem}\n"
    )
    settings = load_settings(file, {})
    assert settings.redis.password_file == tmp_path / "secrets/redis"
    assert settings.redis.ssl_cafile == tmp_path / "ca.pem"
    assert settings.s3.ca_file == tmp_path / "s3.pem"
