"""Which settings of a login go together, and what `sluice config show` says of them."""

import sys
from pathlib import Path

import pytest
import yaml
from kafka.errors import KafkaConfigurationError
from kafka.net.sasl import get_sasl_mechanism
from pydantic import ValidationError
from typer.testing import CliRunner

from worker.cli.main import app
from worker.intake.kafka_logins import login_options
from worker.settings import KafkaSettings

PASSWORD = {"sasl_username": "u", "sasl_password": "p"}
OAUTH = {"token_url": "https://id.example/token", "client_id": "c", "client_secret": "hidden-secret"}


@pytest.mark.parametrize(
    "login",
    [
        {"sasl_mechanism": "PLAIN", **PASSWORD},
        {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u", "sasl_password_file": "/run/secrets/kafka"},
        {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth": OAUTH},
        {"sasl_mechanism": "AWS_MSK_IAM"},
        {"sasl_mechanism": "GSSAPI"},
    ],
)
def test_each_mechanism_takes_its_own_credentials(login: dict[str, object]) -> None:
    KafkaSettings.model_validate({"security_protocol": "SASL_SSL", **login})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "needs sasl_username and sasl_password"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs sasl_oauth"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM", **PASSWORD}, "takes no sasl_username"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "AWS_MSK_IAM"}, "needs security_protocol SASL_SSL"),
        ({"security_protocol": "SSL", "sasl_mechanism": "PLAIN", **PASSWORD}, "neither SASL_PLAINTEXT nor SASL_SSL"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", **PASSWORD, "sasl_password_file": "f"},
            "are both set",
        ),
        ({"security_protocol": "SSL", "ssl_key_password": "p"}, "no ssl_keyfile"),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth": {"token_url": "https://u:p@id.example/token", "client_id": "c", "client_secret": "s"},
            },
            "without credentials",
        ),
    ],
)
def test_credentials_that_do_not_go_together_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        KafkaSettings.model_validate(settings)


def test_kerberos_and_msk_are_passed_on() -> None:
    kerberos = KafkaSettings.model_validate(
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI", "sasl_kerberos_service_name": "broker"}
    )
    assert login_options(kerberos) == {"sasl_mechanism": "GSSAPI", "sasl_kerberos_service_name": "broker"}
    msk = KafkaSettings.model_validate({"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"})
    assert login_options(msk) == {"sasl_mechanism": "AWS_MSK_IAM"}


def test_kerberos_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    with pytest.raises(KafkaConfigurationError, match=r"pip install 'sluice\[kerberos\]'"):
        get_sasl_mechanism("GSSAPI")(host="broker", sasl_kerberos_service_name="kafka")


def test_config_show_hides_every_secret(tmp_path: Path) -> None:
    file = tmp_path / "sluice.yaml"
    kafka = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth": OAUTH}
    file.write_text(yaml.safe_dump({"kafka": kafka, "redis": {"url": "redis://user:hidden-too@host:6379/0"}}))
    shown = CliRunner().invoke(app, ["config", "show", "--config", str(file)], env={"SLUICE_KAFKA__GROUP_ID": "mine"})
    assert shown.exit_code == 0, shown.output
    assert "hidden" not in shown.output
    settings = yaml.safe_load(shown.output)
    assert settings["kafka"]["group_id"] == "mine"
    assert settings["kafka"]["sasl_oauth"]["client_id"] == "c"
    assert "intake" not in settings
    everything = yaml.safe_load(CliRunner().invoke(app, ["config", "show", "--all", "--config", str(file)]).output)
    assert everything["intake"]["batch_size"] > 0
