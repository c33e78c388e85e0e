"""Settings reach an application from a file, variables and arguments, and mistakes in them are told."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.apps.arguments import Arguments, changed
from worker.settings import Settings, SettingsError


def test_arguments_win_over_variables_and_these_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sluice.yaml"
    file.write_text(
        "kafka: {group_id: file, bootstrap_servers: 'file:1'}\npolicy: mine.yaml\nintake: {batch_size: 8}\n"
    )
    monkeypatch.setenv("SLUICE_KAFKA__BOOTSTRAP_SERVERS", "variable:1")
    monkeypatch.setenv("SLUICE_INTAKE__BATCH_SIZE", "9")

    settings = Arguments(config=file, settings={"intake": {"batch_size": 10}}).load()

    assert settings.kafka.group_id == "file"
    assert settings.kafka.bootstrap_servers == "variable:1"
    assert settings.intake.batch_size == 10
    assert settings.policy == tmp_path / "mine.yaml"


def test_settings_with_secrets_reach_a_replica_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "pw"}
    settings = Arguments(settings={"kafka": sasl}).load()

    there = pickle.loads(pickle.dumps(settings))

    assert there == settings
    assert there.kafka.sasl_password.get_secret_value() == "pw"
    assert changed(there, {"model": "other"}, "user_config").kafka == settings.kafka


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="confg"):
        Arguments.model_validate({"confg": "sluice.yaml"})


def test_a_mistyped_setting_is_named_with_its_place_and_without_its_value() -> None:
    with pytest.raises(SettingsError) as caught:
        Arguments(settings={"kafka": {"sasl_pasword": "hunter2"}}).load()

    assert str(caught.value).startswith("args.settings: kafka.sasl_pasword: is not a known key")
    assert "hunter2" not in str(caught.value)


def test_changes_that_are_no_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="user_config: expected an object"):
        changed(Settings(), ["model"], "user_config")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="user_config: intake: batch_size is more than max_records_in_flight"):
        changed(Settings(), {"intake": {"max_records_in_flight": 3}}, "user_config")
