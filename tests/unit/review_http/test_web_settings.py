"""Settings of the desk's context."""

import socket
from pathlib import Path

import fakeredis
import pytest
from stand_in_desk import StandInDesk

from worker.review.http.server import DeskServerError
from worker.review.http.serving import serve_desk
from worker.settings import Settings, SettingsError, WebSettings, load_settings


def test_the_port_can_be_set_by_a_variable_and_kubernetes_own_is_ignored() -> None:
    env = {"SLUICE_WEB__PORT": "8500", "SLUICE_WEB_PORT": "tcp://10.0.0.1:80"}
    assert load_settings(None, env).web.port == 8500


def test_a_provider_can_be_set_by_variables() -> None:
    env = {
        "SLUICE_WEB__OIDC__ISSUER": "https://id.example.com",
        "SLUICE_WEB__OIDC__CLIENT_ID": "sluice",
        "SLUICE_WEB__OIDC__ROLES": '{"moderators": "reviewer"}',
    }
    oidc = load_settings(None, env).web.oidc
    assert oidc is not None
    assert oidc.roles == {"moderators": "reviewer"}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SLUICE_WEB__PUBLIC_URL", "https://desk.example.com/", "without credentials, path or trailing slash"),
        ("SLUICE_WEB__PUBLIC_URL", "https://user:secret@desk.example.com", "without credentials"),
        ("SLUICE_WEB__SECRET_KEY", "short", "at least 32"),
        ("SLUICE_WEB__OIDC__ISSUER", "http://id.example.com", "https://"),
        ("SLUICE_WEB__PROT", "1", "did you mean 'SLUICE_WEB__PORT'"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(None, {variable: value})
    assert variable in str(refusal.value)
    assert said in str(refusal.value)
    assert "secret" not in str(refusal.value).lower().replace("secret_key", "")


def opened(tmp_path: Path, web: WebSettings) -> None:
    serve_desk(Settings(web=web), tmp_path, StandInDesk(), fakeredis.FakeRedis(), tmp_path).close()


def test_a_desk_that_is_reached_from_elsewhere_needs_https(tmp_path: Path) -> None:
    with pytest.raises(DeskServerError, match=r"set web\.public_url"):
        opened(tmp_path, WebSettings(host="0.0.0.0", port=0))
    with pytest.raises(DeskServerError, match="must begin with https://"):
        opened(tmp_path, WebSettings(port=0, public_url="http://desk.example.com"))


def test_a_desk_where_nobody_could_sign_in_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(DeskServerError, match="nobody could sign in"):
        opened(tmp_path, WebSettings(port=0, local_users=False))


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeskServerError, match=f"cannot listen on 127.0.0.1:{port}"):
            opened(tmp_path, WebSettings(port=port))


def test_the_key_and_the_users_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    opened(tmp_path, WebSettings(port=0))
    for name in ("desk.key", "people.sqlite"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
