"""Settings from a file and the environment."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from worker.settings import Settings, SettingsError, load_settings

DOCUMENTED = """\
model: mst-lite                 # a name in the model repository or a path to a manifest
policy: policy.yaml             # absent: the one that ships
kafka: {bootstrap_servers: "127.0.0.1:9092", group_id: sluice, topics: {images: images.in, verdicts: images.verdicts, review: images.review, dead: images.dead}}
redis: {url: "redis://127.0.0.1:6379/0"}
s3:    {endpoint_url: "http://127.0.0.1:8333"}   # absent: AWS; credentials by boto3's own chain
files: {roots: [./images]}      # nothing outside can be read
"""  # noqa: E501 - as documented


def written(folder: Path, text: str) -> Path:
    path = folder / "sluice.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_documented_file_loads(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, DOCUMENTED), {})
    assert settings.model == "mst-lite"
    assert settings.kafka.topics.verdicts == "images.verdicts"
    assert settings.redis.url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.s3.endpoint_url == "http://127.0.0.1:8333"


def test_without_a_file_and_variables_there_are_defaults() -> None:
    assert load_settings(None, {"PATH": "/bin"}) == Settings()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, ""), {}) == Settings()


def test_relative_paths_of_the_file_count_from_its_folder(tmp_path: Path) -> None:
    text = "policy: p.yaml\nmodel: ./m/manifest.json\nfiles: {roots: [images, /srv]}\n"
    text += "kafka: {security_protocol: SSL, ssl_cafile: ca.pem}\n"
    settings = load_settings(written(tmp_path, text), {})
    assert settings.policy == tmp_path / "p.yaml"
    assert settings.model == str(tmp_path / "m/manifest.json")
    assert settings.files.roots == (tmp_path / "images", Path("/srv"))
    assert settings.kafka.ssl_cafile == tmp_path / "ca.pem"


def test_a_file_behind_a_link_keeps_its_name_because_kubernetes_points_the_link_elsewhere(tmp_path: Path) -> None:
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "p.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")
    policy = load_settings(written(tmp_path, "policy: ./p.yaml\n"), {}).policy
    (tmp_path / "..data").unlink()
    (tmp_path / "..data").symlink_to("..2")
    assert Path(str(policy)).read_text() == "..2"


def test_variables_override_single_values_of_the_file(tmp_path: Path) -> None:
    env = {
        "SLUICE_KAFKA__TOPICS__IMAGES": "other.in",
        "SLUICE_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
        "sluice_intake__batch_size": "8",
        "SLUICE_FILES__ROOTS": '["/a", "/b"]',
        "SLUICE_POLICY": "mine.yaml",
    }
    settings = load_settings(written(tmp_path, DOCUMENTED), env)
    assert settings.kafka.topics.images == "other.in"
    assert settings.kafka.topics.dead == "images.dead"
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.kafka.group_id == "sluice"
    assert settings.intake.batch_size == 8
    assert settings.files.roots == (Path("/a"), Path("/b"))
    assert settings.policy == Path("mine.yaml")


def test_the_processs_own_variables_come_in_by_load_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_MODEL", "other")
    assert Settings().model == load_settings(None, {}).model == "mst-lite"


def test_a_variable_set_to_nothing_counts_as_absent() -> None:
    assert load_settings(None, {"SLUICE_POLICY": "", "SLUICE_INTAKE__BATCH_SIZE": ""}) == Settings()


@pytest.mark.parametrize(
    "name",
    [
        "SLUICE_SERVICE_HOST",
        "SLUICE_SERVICE_PORT_HTTP",
        "SLUICE_PORT",
        "SLUICE_PORT_8080_TCP_ADDR",
        "SLUICE_DESK_SERVICE_PORT",
        "SLUICE_DESK_PORT_80_TCP",
    ],
)
def test_what_kubernetes_sets_for_a_service_named_sluice_is_passed_over(name: str) -> None:
    assert load_settings(None, {name: "tcp://10.0.0.1:80"}) == Settings()


FILES = [
    ("a: [", ":1: not YAML"),
    ("model: a\nmodel: b", ":2: not YAML: the key 'model' twice"),
    ("- a", ":1: expected a mapping"),
    ("model: !!python/object:os.system x", ":1: not YAML: could not determine a constructor"),
    ("modle: mst-lite", ":1: modle: is not a known key; did you mean 'model'?"),
    (
        "kafka:\n  bootstrap_server: a",
        ":2: kafka.bootstrap_server: is not a known key; did you mean 'bootstrap_servers'?",
    ),
    ("kafka: 127.0.0.1:9092", ":1: kafka: expected an object"),
    ("kafka:\n  topics:\n    images: 'a b'", ":3: kafka.topics.images: should match pattern"),
    ("kafka: {topics: {images: x, dead: x}}", ":1: kafka.topics: two topics have the same name"),
    ("kafka:\n  delivery: twice", ":2: kafka.delivery: should be 'exactly_once' or 'at_least_once'"),
    (
        "kafka:\n  security_protocol: SASL_SSL",
        ":1: kafka: security_protocol SASL_SSL needs sasl_mechanism and sasl_username",
    ),
    ("kafka:\n  sasl_username: me", "security_protocol is neither SASL_PLAINTEXT nor SASL_SSL"),
    ("kafka:\n  sasl_password: 12345", ":2: kafka.sasl_password: expected text"),
    ("kafka: {security_protocol: SSL, ssl_certfile: a}", "ssl_certfile and ssl_keyfile must be set together"),
    ("kafka: {ssl_cafile: a}", "security_protocol is neither SSL nor SASL_SSL"),
    (
        "kafka: {max_message_bytes: 9}\nintake: {max_bytes_in_flight: 8}",
        "kafka.max_message_bytes is more than intake.max_bytes_in_flight",
    ),
    ("redis:\n  url: http://x", ":2: redis.url: must begin with redis://, rediss:// or unix://"),
    ("s3:\n  endpoint_url: http://me:pw@s3", ":2: s3.endpoint_url: must be http(s)://host[:port], without credentials"),
    ("s3: {secret_key: x}", ":1: s3.secret_key: is not a known key"),
    ("files:\n  roots: ./images", ":2: files.roots: expected a list"),
    ("files:\n  roots:\n    - a\n    - 5", ":4: files.roots[1]: expected a path"),
    ("images: {max_bytes: 0}", ":1: images.max_bytes: should be greater than 0"),
    ("images: {max_bytes: 32MB}", ":1: images.max_bytes: expected a whole number"),
    (
        "intake:\n  batch_size: 9\n  max_records_in_flight: 8",
        ":1: intake: batch_size is more than max_records_in_flight",
    ),
    ("intake:\n  batch_wait_seconds: soon", ":2: intake.batch_wait_seconds: expected a number"),
    ("intake: {retry_base_seconds: 2, retry_max_seconds: 1}", "retry_base_seconds is more than retry_max_seconds"),
    ("telemetry: {metrics_port: 70000}", ":1: telemetry.metrics_port: should be less than or equal to 65535"),
    ("telemetry: {log_level: LOUD}", ":1: telemetry.log_level: should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
]


@pytest.mark.parametrize(("text", "says"), FILES, ids=[says[:60] for _, says in FILES])
def test_an_unusable_file_is_refused_with_its_line_and_what_is_expected(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        load_settings(path, {})
    assert says in str(refused.value)
    assert str(refused.value).startswith(str(path))


VARIABLES = [
    ("SLUICE_KAFKA__BOOTSTRAP", "x", "no such setting; did you mean 'SLUICE_KAFKA__BOOTSTRAP_SERVERS'?"),
    ("SLUICE_KAFKA_BOOTSTRAP_SERVERS", "x", "no such setting; did you mean 'SLUICE_KAFKA__BOOTSTRAP_SERVERS'?"),
    ("SLUICE_NONSENSE", "x", "SLUICE_NONSENSE: no such setting"),
    ("SLUICE_INTAKE__BATCH_SIZE", "many", "SLUICE_INTAKE__BATCH_SIZE: intake.batch_size: expected a whole number"),
    ("SLUICE_FILES__ROOTS", "./images", "SLUICE_FILES or below: a value is not valid JSON"),
    ("SLUICE_KAFKA", '{"group": "g"}', "SLUICE_KAFKA: kafka.group: is not a known key; did you mean 'group_id'?"),
    ("SLUICE_REDIS__URL", "host:6379", "SLUICE_REDIS__URL: redis.url: must begin with redis://"),
]


@pytest.mark.parametrize(("name", "value", "says"), VARIABLES)
def test_an_unusable_variable_is_refused_by_its_name(tmp_path: Path, name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(written(tmp_path, DOCUMENTED), {name: value})
    assert says in str(refused.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(written(tmp_path, "modle: x\nimages: {max_bytes: -1}\n"), {"SLUICE_INTAKE__BATCH_SIZE": "x"})
    assert len(str(refused.value).splitlines()) == 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml", {})


SECRET = "hunter2-correct-horse"
LEAKS = [
    f"kafka: {{security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_password: {SECRET}}}",
    f"kafka: {{sasl_pasword: {SECRET}}}",
    f"kafka: {SECRET}",
    f"redis: {{url: 'http://:{SECRET}@redis'}}",
    f"redis: {{url: ['{SECRET}']}}",
    f"s3: {{endpoint_url: 'http://me:{SECRET}@s3'}}",
    f"intake: {{batch_size: {SECRET}}}",
    f"telemetry: {{log_level: {SECRET}}}",
    f"redis: {{url: '{SECRET}",
    f"kafka: {{sasl_password: @{SECRET}}}",
    f"redis: {{'redis://:{SECRET}@redis': 60}}",
]


@pytest.mark.parametrize("text", LEAKS)
def test_errors_repeat_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(written(tmp_path, text), {})
    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__


@pytest.mark.parametrize("name", ["SLUICE_REDIS__URL", "SLUICE_KAFKA", "SLUICE_INTAKE__BATCH_SIZE", "SLUICE_NONSENSE"])
def test_errors_about_variables_repeat_no_secret(name: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {name: SECRET})
    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_settings_show_no_secret_when_printed(tmp_path: Path) -> None:
    text = f"redis: {{url: 'redis://:{SECRET}@redis'}}\n"
    text += (
        f"kafka: {{security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: me, sasl_password: {SECRET}}}\n"
    )
    settings = load_settings(written(tmp_path, text), {})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == SECRET


def test_a_variable_sets_the_secret_of_a_named_entry(tmp_path: Path) -> None:
    file = written(tmp_path, "review: {webhooks: {shop: {url: 'https://shop.example.com/'}}}")
    settings = load_settings(file, {"SLUICE_REVIEW__WEBHOOKS__SHOP__SECRET": SECRET + "-long-enough"})
    assert settings.review.webhooks["shop"].secret.get_secret_value() == SECRET + "-long-enough"


@pytest.mark.parametrize("name", ["SLUICE_REVIEW__WEBHOOKS__SECRET", "SLUICE_REVIEW__WEBHOOKS__SHOP__SECRETS"])
def test_a_variable_that_misses_a_named_entry_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: no such setting"):
        load_settings(None, {name: SECRET})


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "sluice.yaml"


@hypothesis_settings(deadline=None)  # a busy machine takes its time
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_file_gives_settings_or_a_settings_error(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    problem: str | None = None
    try:
        settings = load_settings(scratch, {})
    except SettingsError as refused:
        problem = str(refused)
    else:
        assert settings.kafka.group_id
    assert problem is None or problem.startswith(str(scratch))


def test_a_path_with_a_nul_character_and_a_deeply_nested_variable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="NUL"):
        load_settings(written(tmp_path, 'files: {roots: ["\\0"]}'), {})
    with pytest.raises(SettingsError, match="SLUICE_KAFKA: a value is nested too deeply"):
        load_settings(None, {"SLUICE_KAFKA": "[" * 100_000 + "]" * 100_000})
