"""How many intake replicas there are, by how many records wait."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from worker.apps.autoscaling import BACKLOG, PARTITIONS, LagPolicy


def context(replicas: int, backlog: dict[str, float], partitions: int = 8) -> AutoscalingContext:
    reports = {BACKLOG: backlog, PARTITIONS: dict.fromkeys(backlog, float(partitions))} if backlog else {}
    return AutoscalingContext(
        deployment_id=None,
        deployment_name="intake",
        app_name="intake",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=[],
        total_num_requests=0,
        total_queued_requests=0,
        aggregated_metrics=reports,
        raw_metrics={},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=100,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=None,
    )


def wanted(replicas: int, *backlog: float, partitions: int = 8) -> int:
    reports = {f"replica-{i}": records for i, records in enumerate(backlog)}
    return LagPolicy(records_per_replica=1000)(context(replicas, reports, partitions))[0]


def test_a_backlog_brings_as_many_replicas_as_it_needs() -> None:
    assert wanted(2, 2500.0, 1000.0) == 4


def test_never_more_than_there_are_partitions() -> None:
    assert wanted(2, 90_000.0, 90_000.0, partitions=6) == 6
    assert wanted(9, 90_000.0, partitions=6) == 6


def test_an_idle_intake_gives_up_one_replica_at_a_time_and_keeps_the_last() -> None:
    assert wanted(4, 0.0, 0.0, 0.0, 10.0) == 3
    assert wanted(1, 0.0) == 1


def test_between_idle_and_late_nothing_changes() -> None:
    assert wanted(3, 300.0, 300.0, 300.0) == 3
    assert wanted(3, 1000.0, 1000.0, 1000.0) == 3


def test_replicas_that_have_not_reported_change_nothing() -> None:
    assert wanted(3) == 3


@given(st.integers(1, 64), st.lists(st.floats(0, 1e9), min_size=1, max_size=8), st.integers(1, 64))
def test_whatever_is_reported_there_is_one_and_no_more_than_partitions(
    replicas: int, backlog: list[float], partitions: int
) -> None:
    assert 1 <= wanted(replicas, *backlog, partitions=partitions) <= partitions


def test_serve_loads_the_policy_from_a_config_and_applies_its_delays() -> None:
    from ray.serve._private.autoscaling_state import _resolve_policy_callable
    from ray.serve.autoscaling_policy import _apply_autoscaling_config

    given: dict[str, Any] = {
        "policy_function": "worker.apps.autoscaling:LagPolicy",
        "policy_kwargs": {"records_per_replica": 10},
    }
    config = AutoscalingConfig(min_replicas=1, max_replicas=8, upscale_delay_s=0, policy=given)
    policy = _apply_autoscaling_config(_resolve_policy_callable(config.policy))
    late = context(1, {"a": 35.0})
    late.config = config

    assert policy(late)[0] == 4


def test_a_target_of_no_records_is_refused() -> None:
    with pytest.raises(ValueError, match="records_per_replica is 0"):
        LagPolicy(records_per_replica=0)
