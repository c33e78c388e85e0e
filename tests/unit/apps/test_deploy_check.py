from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from worker.apps.checking.check import Checked, DeployConfigError, check
from worker.cli.main import app

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "deploy/serve"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where relative paths of the shipped configs count from."""
    monkeypatch.chdir(ROOT)


def filled_in() -> str:
    """gpu.yaml with names of one's own."""
    text = (CONFIGS / "gpu.yaml").read_text().replace("example.com", "sluice.test")
    return text.replace("keys: {}   ", f"keys: {{acme: 'sha256:{'a' * 64}'}}")


Changed = Callable[[Callable[[Any], None]], list[str]]


@pytest.fixture
def problems_of(tmp_path: Path) -> Iterator[Changed]:
    """The problems of gpu.yaml with something changed, each without the file's name and the line."""
    file = tmp_path / "serve.yaml"

    def problems(change: Callable[[Any], None]) -> list[str]:
        data = yaml.safe_load(filled_in())
        change(data)
        file.write_text(yaml.safe_dump(data, sort_keys=False))
        try:
            check(file)
        except DeployConfigError as error:
            return [line.split(": ", 1)[1] for line in str(error).splitlines()]
        return []

    return problems


def application(data: Any, name: str) -> Any:
    return next(each for each in data["applications"] if each["name"] == name)


def deployment(data: Any, name: str) -> Any:
    return application(data, name)["deployments"][0]


def test_the_shipped_configs_can_be_deployed_once_they_hold_names_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(filled_in())
    for file in (CONFIGS / "local.yaml", tmp_path / "gpu.yaml"):
        assert check(file).applications == ("engine", "intake", "gateway", "desk")


def test_the_shipped_gpu_config_is_refused_as_long_as_it_holds_examples() -> None:
    with pytest.raises(DeployConfigError) as caught:
        check(CONFIGS / "gpu.yaml")
    lines = [line.split(": ", 1)[1] for line in str(caught.value).splitlines()]
    assert [line.partition(":")[0].split(".")[-1] for line in lines] == [
        "model",
        "repository",
        "policy",
        "bootstrap_servers",
        "keys",
        "public_url",
    ]
    assert lines[3].endswith("kafka.example.com is an example; replace it with your own name")
    assert "make a key with `sluice deploy key`" in lines[4]


def test_offline_it_says_what_it_has_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(filled_in())
    notes = "\n".join(check(tmp_path / "gpu.yaml").notes)
    for named in ("s3://models.sluice.test/mst-clip", "policy.yaml", "kafka.sluice.test:9092", "Redis and S3"):
        assert f"{named}" in notes
    assert notes.count("--online") == 4


def test_engine_values_that_harm_it_are_told(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        engine = deployment(data, "engine")
        engine["max_ongoing_requests"] = 2
        engine["graceful_shutdown_timeout_s"] = 0.1
        engine["health_check_timeout_s"] = 0.5
        engine["user_config"] = {"model": "mst-lite", "kafka": {"group_id": "other"}, "policy": "p.yaml"}

    problems = problems_of(change)
    said = {problem.partition(":")[0].rpartition("deployments[0].")[2]: problem for problem in problems}
    assert "is less than calls_at_once, so 2 of 4 calls are never used" in said["max_ongoing_requests"]
    assert "after 0.1 s Serve kills the replica" in said["graceful_shutdown_timeout_s"]
    assert "0.5 s is less than a busy replica may need" in said["health_check_timeout_s"]
    assert "the engine uses only model, engine, s3" in said["user_config.kafka"]
    assert "the engine uses only model, engine, s3" in said["user_config.policy"]
    assert len(problems) == 5


def typo(path: str) -> Callable[[Any], None]:
    """Puts `typo: 1` into the mapping at the path, which is made where it is absent."""

    def put(data: Any) -> None:
        at = data
        for part in path.split(".") if path else []:
            at = at[int(part)] if part.isdigit() else at.setdefault(part, {})
        at["typo"] = 1

    return put


@pytest.mark.parametrize(
    "path",
    [
        "",
        "http_options",
        "grpc_options",
        "applications.0",
        "applications.0.deployments.0",
        "applications.0.deployments.0.ray_actor_options",
        "applications.0.deployments.0.ray_actor_options.runtime_env",
        "applications.0.deployments.0.request_router_config",
        "applications.0.runtime_env",
        "applications.1.deployments.0.autoscaling_config",
        "applications.1.deployments.0.autoscaling_config.policy",
    ],
)
def test_a_mistyped_key_that_ray_accepts_is_told(problems_of: Changed, path: str) -> None:
    def change(data: Any) -> None:
        typo(path)(data)
        ServeDeploySchema.model_validate(data)  # else there would be nothing to check

    problems = problems_of(change)
    assert len(problems) == 1
    assert "typo: is not a known key" in problems[0]


@pytest.mark.parametrize(
    "path",
    [
        "logging_config",
        "applications.0.args",
        "applications.0.args.settings",
        "applications.0.args.settings.kafka",
        "applications.0.deployments.0.user_config",
        "applications.0.deployments.0.backpressure_config",
    ],
)
def test_other_mistyped_keys_are_told_too(problems_of: Changed, path: str) -> None:
    problems = problems_of(typo(path))
    assert problems
    assert all("typo" in problem for problem in problems)


def test_a_problem_names_its_line_and_what_may_have_been_meant(tmp_path: Path) -> None:
    text = filled_in().replace("max_replicas: 12", "max_replcas: 12")
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "max_replcas" in each)
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(DeployConfigError) as caught:
        check(tmp_path / "bad.yaml")
    where = "applications[1].deployments[0].autoscaling_config.max_replcas"
    said = f"{tmp_path}/bad.yaml:{line}: {where}: is not a known key; did you mean 'max_replicas'?"
    assert str(caught.value) == said


def test_paths_that_cannot_be_imported_are_told(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        application(data, "gateway")["import_path"] = "worker.apps.gateway:bild"
        application(data, "desk")["import_path"] = "worker.apps.deks:build"
        deployment(data, "intake")["autoscaling_config"]["policy"]["policy_function"] = "worker.apps.autoscaling:Lag"

    problems = problems_of(change)
    assert len(problems) == 3
    assert all("has no attribute" in problem or "No module named" in problem for problem in problems)


def test_values_that_ray_would_only_meet_on_the_cluster_are_told(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        deployment(data, "engine")["autoscaling_config"]["min_replicas"] = 20
        deployment(data, "intake")["autoscaling_config"]["policy"]["policy_kwargs"] = {"records": 1}
        application(data, "engine")["args"]["calls_at_once"] = 0

    problems = " ".join(problems_of(change))
    assert "max_replicas" in problems
    assert "unexpected keyword argument 'records'" in problems
    assert "calls_at_once: should be greater than or equal to 1" in problems


@pytest.mark.parametrize("prefix", ["gateway", "/gateway/", "/gateway/{any}"])
def test_a_route_prefix_that_ray_would_refuse_on_the_cluster_is_told(problems_of: Changed, prefix: str) -> None:
    problems = problems_of(lambda data: application(data, "gateway").update(route_prefix=prefix))
    assert len(problems) == 1
    assert "applications[2].route_prefix" in problems[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ray_actor_options": {"resources": {"gpu_kind": "a"}}}, "Ray refuses these options"),
        ({"ray_actor_options": {"runtime_env": {"env_vars": {"A": 1}}}}, "runtime_env['env_vars']"),
        ({"placement_group_bundles": [{"CPU": 1}], "placement_group_strategy": "PAK"}, "placement"),
    ],
)
def test_options_that_ray_would_refuse_on_the_cluster_are_told(
    problems_of: Changed, options: dict[str, Any], says: str
) -> None:
    problems = problems_of(lambda data: deployment(data, "gateway").update(options))
    assert problems
    assert says in problems[0]


def test_a_deployment_that_stands_there_twice_is_told(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        application(data, "gateway")["deployments"].append({"name": "gateway", "max_ongoing_requests": 90})

    (problem,) = problems_of(change)
    assert "applications[2].deployments[1].name: there are two entries for 'gateway'" in problem


def test_a_user_config_for_a_deployment_that_takes_none_is_told(problems_of: Changed) -> None:
    """Ray would start no replica."""
    (problem,) = problems_of(lambda data: deployment(data, "desk").update(user_config={"web": {"port": 1}}))
    assert "applications[3].deployments[0].user_config: 'desk' has no user_config" in problem


@pytest.mark.parametrize("scaling", [{"num_replicas": "auto"}, {"autoscaling_config": {"max_replicas": 3}}])
def test_an_intake_that_would_scale_on_calls_is_told_that_it_gets_none(
    problems_of: Changed, scaling: dict[str, Any]
) -> None:
    def change(data: Any) -> None:
        del deployment(data, "intake")["autoscaling_config"]
        deployment(data, "intake").update(scaling)

    (problem,) = problems_of(change)
    assert "the intake gets none" in problem


def test_an_intake_that_names_another_model_than_its_engine_is_noted(tmp_path: Path) -> None:
    data = yaml.safe_load(filled_in())
    deployment(data, "engine")["user_config"] = {"model": "s3://others/other"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(data))
    notes = [note for note in check(tmp_path / "serve.yaml").notes if "its engine's" in note]
    assert [note.partition(":")[0] for note in notes] == ["intake", "gateway"]


def test_a_deployment_that_the_application_lacks_is_told(problems_of: Changed) -> None:
    (problem,) = problems_of(lambda data: deployment(data, "intake").update(name="intakes"))
    assert "has no deployment 'intakes'; did you mean 'intake'?" in problem


def test_an_engine_that_the_config_lacks_is_told(problems_of: Changed) -> None:
    (problem,) = problems_of(lambda data: application(data, "gateway")["args"].update(engine="engin"))
    assert problem.startswith("applications[2].args.engine: this config has no application 'engin'")


def test_times_that_do_not_fit_together_are_told(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        deployment(data, "intake")["graceful_shutdown_timeout_s"] = 10
        deployment(data, "gateway")["graceful_shutdown_timeout_s"] = 10
        data["http_options"]["request_timeout_s"] = 20

    problems = "\n".join(problems_of(change))
    assert "applications[1].deployments[0].graceful_shutdown_timeout_s: after 10 s Serve kills" in problems
    assert "applications[2].deployments[0].graceful_shutdown_timeout_s: after 10 s Serve kills" in problems
    assert "http_options.request_timeout_s: 20 s is not more than gateway.timeout_seconds" in problems
    assert "end the desk's live event streams" in problems


def test_times_that_a_user_config_changes_must_fit_too(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        deployment(data, "intake")["user_config"] = {"intake": {"drain_seconds": 100}}
        deployment(data, "gateway")["user_config"] = {"gateway": {"max_requests": 200}}

    drain, room = problems_of(change)
    assert "which may need 130 s to stop" in drain
    assert "leaves no capacity for health checks besides the 200 requests" in room


def test_a_gateway_without_room_for_health_checks_is_told(problems_of: Changed) -> None:
    (problem,) = problems_of(lambda data: deployment(data, "gateway").update(max_ongoing_requests=64))
    assert "leaves no capacity for health checks" in problem


@pytest.mark.parametrize("option", [{"num_replicas": 2}, {"autoscaling_config": {"max_replicas": 3}}])
def test_a_second_desk_is_refused(problems_of: Changed, option: dict[str, Any]) -> None:
    (problem,) = problems_of(lambda data: deployment(data, "desk").update(option))
    assert "there can be only one desk" in problem


def test_routes_that_cannot_work_are_told(problems_of: Changed) -> None:
    def change(data: Any) -> None:
        application(data, "desk")["route_prefix"] = "/desk"
        application(data, "intake")["route_prefix"] = "/intake"

    problems = problems_of(change)
    assert [problem.split(": ")[0] for problem in problems] == [
        "applications[1].route_prefix",
        "applications[3].route_prefix",
    ]


def test_a_desk_without_its_address_is_told(problems_of: Changed) -> None:
    (problem,) = problems_of(lambda data: application(data, "desk")["args"]["settings"]["web"].pop("public_url"))
    assert "web.public_url: is missing" in problem


@pytest.mark.parametrize(
    ("web", "says"),
    [
        ({"public_url": "http://desk.sluice.test"}, "must begin with https://"),
        ({"public_url": "https://desk.sluice.test", "local_users": False}, "nobody could sign in"),
    ],
)
def test_a_desk_that_would_not_open_is_told(problems_of: Changed, web: dict[str, Any], says: str) -> None:
    (problem,) = problems_of(lambda data: application(data, "desk")["args"]["settings"].update(web=web))
    assert says in problem


def test_an_address_and_keys_that_a_file_elsewhere_may_hold_are_not_missed(tmp_path: Path) -> None:
    data = yaml.safe_load((CONFIGS / "local.yaml").read_text())
    data["http_options"]["host"] = "0.0.0.0"
    application(data, "gateway")["args"] = {"config": str(tmp_path / "absent.yaml")}
    application(data, "desk")["args"] = {"config": str(tmp_path / "absent.yaml"), "data": "desk"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(data))
    assert any(note.startswith("desk: ") for note in check(tmp_path / "serve.yaml").notes)


def test_what_a_settings_file_says_is_checked_where_it_is_and_noted_where_it_is_not(tmp_path: Path) -> None:
    def checked(config: Path) -> Checked:
        data = yaml.safe_load((CONFIGS / "local.yaml").read_text())
        for each in data["applications"]:
            each["args"]["config"] = str(config)
        (tmp_path / "serve.yaml").write_text(yaml.safe_dump(data))
        return check(tmp_path / "serve.yaml")

    assert any("is not on this machine" in note for note in checked(tmp_path / "absent.yaml").notes)
    (tmp_path / "settings.yaml").write_text("kafka: {bootstrap_severs: a}\n")
    with pytest.raises(DeployConfigError, match=r"settings\.yaml:1: kafka\.bootstrap_severs: is not a known key"):
        checked(tmp_path / "settings.yaml")


def test_the_command_ends_with_2_and_every_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("applicatons: []\n")
    result = CliRunner().invoke(app, ["deploy", "check", str(tmp_path / "bad.yaml")])
    assert result.exit_code == 2
    assert "did you mean 'applications'?" in result.stderr
    assert "applications: is missing" in result.stderr


def test_a_missing_import_path_is_told_once(problems_of: Changed) -> None:
    (problem,) = problems_of(lambda data: application(data, "desk").pop("import_path"))
    assert problem == "applications[3].import_path: is missing"


def test_a_config_without_applications_is_told_to_end_all(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("applications: []\n")
    result = CliRunner().invoke(app, ["deploy", "check", str(tmp_path / "none.yaml")])
    assert result.exit_code == 0
    assert "names no application; Serve would stop all its applications" in result.stdout


def test_a_key_is_made_with_the_digest_that_lets_it_in() -> None:
    from worker.review.http.bearer_keys import digest_of

    lines = CliRunner().invoke(app, ["deploy", "key"]).stdout.split()
    key, digest = lines[1], lines[3]
    assert digest_of(key) == digest
    assert len(key) >= 43
