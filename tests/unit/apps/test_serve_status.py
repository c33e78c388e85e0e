"""Why a Serve application fails is told in one line, whatever tracebacks Ray puts around it."""

import traceback
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from typer.testing import CliRunner

from worker.apps import status as module
from worker.apps.status import parts, reason_of
from worker.cli.main import app
from worker.settings import SettingsError

REASON = "user_config: modl: is not a known key; did you mean 'model'?"


def fail(cause: Exception) -> None:
    raise cause


def as_serve_tells(cause: Exception) -> str:
    """A replica's exception as Serve 2.60 tells it: its traceback is the text of another one, which Ray wraps again."""

    def initialize() -> None:
        try:
            fail(cause)
        except Exception:  # noqa: BLE001  # as Serve does
            raise RuntimeError(traceback.format_exc()) from None

    try:
        initialize()
    except RuntimeError as error:
        there = RayTaskError("ServeReplica:intake:intake.initialize_and_get_metadata", traceback.format_exc(), error)
    return (
        "The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or initial "
        f"health check failing. See controller logs for details. Error:\n{there.as_instanceof_cause()}"
    )


def details(message: str, status: str = "DEPLOY_FAILED") -> dict[str, Any]:
    deployment = {"status": "UNHEALTHY" if message else "HEALTHY", "message": message}
    return {"applications": {"intake": {"status": status, "message": "", "deployments": {"intake": deployment}}}}


def test_the_reason_is_the_replicas_own_exception() -> None:
    assert "Traceback" in as_serve_tells(SettingsError(REASON))
    assert reason_of(as_serve_tells(SettingsError(REASON))) == f"SettingsError: {REASON}"
    assert reason_of(as_serve_tells(ValueError("one\ntwo"))) == "ValueError: one\ntwo"
    assert reason_of("A replica's health check failed.") == "A replica's health check failed."
    assert reason_of("") == ""


def test_the_command_shows_it_below_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(parts(details(as_serve_tells(SettingsError(REASON)))))
    monkeypatch.setattr(module, "read_status", lambda _address: found)
    told = CliRunner().invoke(app, ["deploy", "status"])
    assert told.exit_code == 1
    assert told.stdout == f"intake: DEPLOY_FAILED\nintake/intake: UNHEALTHY\n  SettingsError: {REASON}\n"

    monkeypatch.setattr(module, "read_status", lambda _address: list(parts(details("", "RUNNING"))))
    assert CliRunner().invoke(app, ["deploy", "status"]).exit_code == 0


def test_a_dashboard_that_does_not_answer_is_an_error_without_a_traceback() -> None:
    told = CliRunner().invoke(app, ["deploy", "status", "--address", "http://127.0.0.1:9"])
    assert told.exit_code == 2
    assert "http://127.0.0.1:9" in told.stderr
    assert "Traceback" not in told.stderr
