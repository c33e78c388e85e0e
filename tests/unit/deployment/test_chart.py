"""What the Helm chart makes of its values is valid for Kubernetes and its operators, safe, and taken by our code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ops.dev.deployment_tools import KUBERNETES, DeploymentTools
from ops.dev.kafka_jars import java, maven_jars
from ops.helm.__main__ import chart_files
from tests.unit.deployment.chart import (
    CHART,
    CUSTOM_RESOURCES,
    SERVERS,
    VARIANTS,
    helm,
    one,
    pods,
    resources,
    template,
    text_of,
)
from worker.apps.checking.check import check
from worker.intake.packs import MOST_RECORDS
from worker.settings import Settings, TopicSettings, load_settings

STRIMZI = CHART.parents[2] / "ops/dev/strimzi"


def settings_of(variant: str, folder: Path) -> Settings:
    file = folder / "sluice.yaml"
    file.write_text(one(variant, "ConfigMap", "sluice")["data"]["sluice.yaml"])
    return load_settings(file, {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_lint_finds_nothing(variant: str) -> None:
    file, values = VARIANTS[variant]
    sets = [argument for name, value in values.items() for argument in ("--set", f"{name}={value}")]
    done = helm("lint", "--strict", CHART, "-f", CHART / file, *sets)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_resource_is_valid_to_the_last_key(tools: DeploymentTools, tmp_path: Path, version: str) -> None:
    for variant in VARIANTS:
        (tmp_path / f"{variant}.yaml").write_text(text_of(variant))
    done = kubeconform(tools, version, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Invalid: 0, Errors: 0" in done.stdout


def test_a_mistyped_key_of_a_resource_would_be_found(tools: DeploymentTools, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text_of("gpu").replace("excludeHeadPodFromServeSvc", "excludeHeadFromServeSvc"))
    done = kubeconform(tools, KUBERNETES[-1], tmp_path)
    assert done.returncode == 1
    assert "excludeHeadFromServeSvc" in done.stdout


needs_compiler = pytest.mark.skipif(
    "jdk.compiler" not in subprocess.run([java(), "--list-modules"], capture_output=True, text=True).stdout,
    reason="needs a JDK: the Java here runs no source files",
)


def strimzi_check(file: Path) -> "subprocess.CompletedProcess[str]":
    jars = maven_jars(STRIMZI / "pom.xml", "strimzi")
    command = [java(), "-cp", f"{jars}/*", STRIMZI / "StrimziCheck.java", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_compiler
def test_topics_and_user_are_what_strimzi_takes(tmp_path: Path) -> None:
    (tmp_path / "chart.yaml").write_text(text_of("airgapped"))
    done = strimzi_check(tmp_path / "chart.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("read KafkaTopic/") == len(TopicSettings().model_dump(exclude_none=True))
    assert done.stdout.count("read KafkaUser/") == 1


@needs_compiler
def test_a_mistyped_key_of_a_kafka_user_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text_of("airgapped").replace("patternType: prefix", "pattern: prefix"))
    done = strimzi_check(tmp_path / "bad.yaml")
    assert done.returncode == 1
    assert "pattern: is not a known key" in done.stdout


def kubeconform(tools: DeploymentTools, version: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Strimzi's kinds have a test of their own: its schemas are in no Go module."""
    name = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
    places = [f"{tools.schemas}/{{{{ .NormalizedKubernetesVersion }}}}/{name}", f"{tools.schemas}/custom/{name}"]
    schemas = [argument for place in places for argument in ("-schema-location", place)]
    skipped = ["-skip", "KafkaTopic,KafkaUser"]
    command = [tools.kubeconform, "-strict", "-summary", "-kubernetes-version", version, *skipped, *schemas, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_settings_file_is_one_that_sluice_takes(variant: str, tmp_path: Path) -> None:
    settings = settings_of(variant, tmp_path)
    assert settings.kafka.bootstrap_servers in ("kafka:9092", "my-kafka-kafka-bootstrap:9093")
    if variant == "everything":
        assert settings.images.max_bytes == 134217728
        assert settings.policy == Path("/etc/sluice/policy/policy.yaml")


@pytest.mark.parametrize("variant", ["gpu", "gpu-desk-on-ray"])
def test_the_serve_config_passes_sluice_deploy_check(variant: str, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(one(variant, "RayService")["spec"]["serveConfigV2"])
    desk = ("desk",) if variant == "gpu-desk-on-ray" else ()
    assert check(file).applications == ("engine", "intake", "gateway", *desk)


@pytest.mark.parametrize(
    "value",
    [
        "worker.replcas=2",
        "modes=ray",
        "mode=rays",
        "ray.gpuNodes.replica=1",
        "settings.kafka.bootstrap_server=kafka:9092",
        "settings.intake.drain_second=3",
        "secretVariables.SLUICE_REDIS__URL.value=redis://secret",
        "secretVariables.PATH.secret=a",
    ],
)
def test_a_mistyped_or_wrong_value_is_refused_by_name(value: str) -> None:
    name, _, given = value.partition("=")
    refused = template("values-small.yaml", {**SERVERS, name: given})
    assert refused.returncode == 1
    assert name.split(".")[-1] in refused.stderr or name.split(".")[-2] in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "variable"),
    [
        ("settings.kafka.sasl_password", "hunter2", "SLUICE_KAFKA__SASL_PASSWORD"),
        ("settings.kafka.ssl_key_password", "hunter2", "SLUICE_KAFKA__SSL_KEY_PASSWORD"),
        ("settings.web.secret_key", "hunter2" * 6, "SLUICE_WEB__SECRET_KEY"),
        ("settings.review.webhooks.shop.secret", "hunter2" * 3, "SLUICE_REVIEW__WEBHOOKS__SHOP__SECRET"),
        ("settings.redis.url", "redis://:hunter2@redis:6379/0", "SLUICE_REDIS__URL"),
    ],
)
def test_a_secret_in_values_is_refused_and_not_repeated(name: str, value: str, variable: str) -> None:
    refused = template("values-small.yaml", {**SERVERS, name: value})
    assert refused.returncode == 1
    assert name in refused.stderr
    assert f"secretVariables.{variable}" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_a_gateway_that_nobody_could_call_and_a_keda_without_a_broker_are_refused() -> None:
    refused = template("values-gpu.yaml", {**SERVERS, "ray.gateway.enabled": "true"})
    assert "make a key with `sluice deploy key`" in refused.stderr
    broker = {"secretVariables.SLUICE_KAFKA__BOOTSTRAP_SERVERS.secret": "kafka"}
    broker["secretVariables.SLUICE_KAFKA__BOOTSTRAP_SERVERS.key"] = "address"
    others = {name: value for name, value in SERVERS.items() if "kafka" not in name}
    assert template("values-small.yaml", {**others, **broker}).returncode == 0
    refused = template("values-small.yaml", {**others, **broker, "worker.autoscaling.enabled": "true"})
    assert "KEDA must know the broker" in refused.stderr


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        ("settings.kafka.bootstrap_servers", "name a broker"),
        ("settings.redis.url", "name a Redis"),
        ("settings.web.public_url", "name the desk's address"),
    ],
)
def test_what_must_be_named_is_asked_for(absent: str, told: str) -> None:
    refused = template("values-small.yaml", {name: value for name, value in SERVERS.items() if name != absent})
    assert refused.returncode == 1
    assert told in refused.stderr


@pytest.mark.parametrize(
    ("variant", "operator"),
    [("gpu", "KubeRay's operator"), ("airgapped", "Strimzi's operator"), ("everything", "KEDA")],
)
def test_an_operator_that_the_cluster_lacks_is_named(variant: str, operator: str) -> None:
    lacking = {"gpu": "ray.io", "airgapped": "kafka.strimzi.io", "everything": "keda.sh"}[variant]
    refused = template(*VARIANTS[variant], tuple(api for api in CUSTOM_RESOURCES if not api.startswith(lacking)))
    assert refused.returncode == 1
    assert operator in refused.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted_and_asks_for_what_it_needs(variant: str) -> None:
    """Pod Security's profile `restricted`, and a read-only root."""
    for component, pod in pods(variant).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, component
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.get("automountServiceAccountToken") is False or (variant, component) == ("gpu", "ray-head")
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all({"configMap", "secret", "emptyDir", "persistentVolumeClaim"} & set(each) for each in pod["volumes"])
        containers = [*pod["containers"], *pod.get("initContainers", [])]
        for container in containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
        mounts = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_have_time_to_drain_and_for_a_long_start(variant: str, tmp_path: Path) -> None:
    drain = settings_of(variant, tmp_path).intake.drain_seconds
    for component, pod in pods(variant).items():
        (container,) = pod["containers"]
        if component == "doctor":
            continue
        if component in ("worker", "ray-cpu", "ray-gpu"):
            # 30 s for closing (worker/apps/worker_thread.py), and what Ray takes to drain a node.
            assert pod["terminationGracePeriodSeconds"] >= drain + 30 + (30 if component != "worker" else 0)
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 120
        assert liveness.get("httpGet", {}).get("path") != "/healthz"  # fails while Kafka is away, and while draining


def test_the_serve_config_gives_the_intake_its_time_to_drain() -> None:
    rendered = template("values-gpu.yaml", {**SERVERS, "settings.intake.drain_seconds": "45"})
    service = next(r for r in yaml.safe_load_all(rendered.stdout) if r and r["kind"] == "RayService")
    serve = yaml.safe_load(service["spec"]["serveConfigV2"])
    (intake,) = [each for each in serve["applications"] if each["name"] == "intake"]
    assert intake["deployments"][0]["graceful_shutdown_timeout_s"] >= 45 + 30


def test_missing_topics_are_created_before_a_worker_starts() -> None:
    (init,) = pods("small")["worker"]["initContainers"]
    assert init["command"][:3] == ["sluice", "topics", "create"]
    assert init["args"] == ["--partitions", "12", "--replication-factor", "3"]
    assert "initContainers" not in pods("airgapped")["worker"]  # Strimzi's KafkaTopics are there


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_are_never_two_desks(variant: str) -> None:
    deployments = [r for r in resources(variant) if r["kind"] == "Deployment" and "desk" in r["metadata"]["name"]]
    services = [r for r in resources(variant) if r["kind"] == "RayService"]
    on_ray = any("worker.apps.desk" in service["spec"]["serveConfigV2"] for service in services)
    assert len(deployments) + on_ray == 1
    for deployment in deployments:
        assert deployment["spec"]["replicas"] == 1
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    for service in services:
        assert service["spec"]["upgradeStrategy"] == {"type": "None" if on_ray else "NewCluster"}


def test_workers_are_upgraded_without_a_gap_and_scaled_on_the_lag() -> None:
    deployment = one("everything", "Deployment", "worker")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in deployment["spec"]  # KEDA's: an upgrade must not set it back
    assert one("small", "Deployment", "worker")["spec"]["replicas"] == 1
    scaled = one("everything", "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    kafka = Settings().kafka
    thresholds = {t["metadata"]["topic"]: int(t["metadata"]["lagThreshold"]) for t in scaled["triggers"]}
    surplus = dict.fromkeys(kafka.topics.surplus_topics, 5000 // MOST_RECORDS)
    assert thresholds == {kafka.topics.images: 5000, **surplus}, "what was moved needs workers, too"
    assert {t["metadata"]["consumerGroup"] for t in scaled["triggers"]} == {kafka.group_id}
    budget = one("everything", "PodDisruptionBudget")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_ray_pods_give_replicas_their_priority_and_gpus_and_keep_the_heads_state_in_redis() -> None:
    for component, pod in pods("gpu").items():
        if component.startswith("ray-"):
            assert {"name": "RAY_worker_niceness", "value": "0"} in pod["containers"][0]["env"]
    gpu = pods("gpu")["ray-gpu"]
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    cluster = one("gpu", "RayService")["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"] == {"redisAddress": "redis:6379"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ray_in_the_images_is_the_version_that_the_chart_names() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    constraints = (CHART.parents[2] / "constraints.txt").read_text()
    assert f"\nray=={values['ray']['version']}\n" in constraints


def test_a_new_model_restarts_nothing_on_ray() -> None:
    """Only `user_config` differs: KubeRay then keeps the cluster, and Serve its replicas."""
    file, values = VARIANTS["gpu"]
    other = template(file, {**values, "settings.model": "s3://our-models/mst-clip/2"}).stdout
    before = text_of("gpu").splitlines()
    changed = [line.strip() for line, was in zip(other.splitlines(), before, strict=True) if line != was]
    expected = 'user_config: {model: "s3://our-models/mst-clip/2"}'
    assert [line for line in changed if not line.startswith(("model:", "sluice/settings:"))] == [expected] * 3


def test_no_image_of_an_air_gapped_cluster_comes_from_elsewhere() -> None:
    images = re.findall(r"image: (\S+)", text_of("airgapped"))
    assert images
    assert all(image.startswith("registry.example.com/sluice/") for image in images)


def test_a_broker_of_strimzi_is_met_with_its_certificates(tmp_path: Path) -> None:
    settings = settings_of("airgapped", tmp_path)
    assert settings.kafka.security_protocol == "SSL"
    mounts = {mount["mountPath"] for mount in pods("airgapped")["worker"]["containers"][0]["volumeMounts"]}
    files = (settings.kafka.ssl_cafile, settings.kafka.ssl_keyfile, settings.s3.ca_file, settings.redis.ssl_cafile)
    for file in files:
        assert str(Path(str(file)).parent) in mounts
    topics = {r["metadata"]["name"]: r["spec"] for r in resources("airgapped") if r["kind"] == "KafkaTopic"}
    assert set(topics) == set(settings.kafka.topics.model_dump(exclude_none=True).values())
    for name in ("images.review", "images.review.snapshot", "images.decisions"):
        assert topics[name]["config"]["cleanup.policy"] == "delete"
        assert topics[name]["config"]["retention.ms"] == "-1"
    assert topics["images.in"]["config"]["max.message.bytes"] == settings.kafka.max_message_bytes


def test_the_alerts_are_those_of_ops_and_match_the_job_of_the_pods(tmp_path: Path) -> None:
    rule = one("everything", "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule))
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [
        relabeling["replacement"]
        for relabeling in one("everything", "PodMonitor")["spec"]["podMetricsEndpoints"][0]["relabelings"]
        if relabeling["targetLabel"] == "job"
    ]
    assert jobs == ["sluice", "sluice-desk"]
    (down,) = [each for group in rule["groups"] for each in group["rules"] if each.get("alert") == "SluiceDown"]
    asked = re.search(r'job=~"([^"]+)"', down["expr"])
    assert asked is not None
    assert all(re.fullmatch(asked[1], job) for job in jobs)


def test_metrics_are_scraped_without_rays_prefix() -> None:
    (endpoint,) = one("gpu", "PodMonitor")["spec"]["podMetricsEndpoints"]
    (relabeling,) = endpoint["metricRelabelings"]
    found = re.fullmatch(relabeling["regex"], "ray_sluice_events_total")
    assert found is not None
    assert found[1] == "sluice_events_total"
    assert relabeling["replacement"] == "$1"


def test_rays_ports_are_closed_to_other_pods() -> None:
    ingress = one("gpu", "NetworkPolicy", "ray")["spec"]["ingress"]
    (open_to_all,) = [rule["ports"] for rule in ingress if "from" not in rule]
    assert open_to_all == [{"port": "serve", "protocol": "TCP"}]


def test_the_notes_and_the_test_pod_say_what_to_do_next() -> None:
    file, values = VARIANTS["small"]
    sets = [argument for name, value in values.items() for argument in ("--set", f"{name}={value}")]
    shown = helm(
        "install", "sluice", CHART, "-f", CHART / file, *sets, "--dry-run=client", "--namespace", "gate"
    ).stdout
    assert "The pods create the topics" in shown
    assert "helm -n gate test sluice" in shown
    doctor = one("small", "Pod", "doctor")
    assert doctor["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert doctor["spec"]["containers"][0]["args"][0] == "doctor"


def test_what_the_chart_holds_of_other_parts_is_fresh() -> None:
    stale = [str(path) for path, text in chart_files().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "write them with python -m ops.helm"
    checked = subprocess.run([sys.executable, "-m", "ops.helm", "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
