"""How many intake replicas there are, by how many records wait."""

import math
import statistics
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from worker.apps.autoscaling import BACKLOG, PARTITIONS, LagPolicy


def context(replicas: int, backlog: dict[str, list[float]], partitions: int = 8, **more: Any) -> AutoscalingContext:
    """`backlog`: what each replica has reported, oldest first."""
    reports = {
        BACKLOG: {name: series(values) for name, values in backlog.items()},
        PARTITIONS: {name: series([partitions] * len(values)) for name, values in backlog.items()},
    }
    given: dict[str, Any] = {
        "deployment_id": None,
        "deployment_name": "intake",
        "app_name": "intake",
        "current_num_replicas": replicas,
        "target_num_replicas": replicas,
        "running_replicas": [],
        "total_num_requests": 0,
        "total_queued_requests": 0,
        "aggregated_metrics": {
            name: {replica: statistics.fmean(each.value for each in of_replica) for replica, of_replica in all_.items()}
            for name, all_ in reports.items()
        },
        "raw_metrics": reports,
        "capacity_adjusted_min_replicas": 1,
        "capacity_adjusted_max_replicas": 100,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": 0.0,
        "config": None,
    }
    return AutoscalingContext(**(given | more))


def series(values: Sequence[float]) -> list[TimeStampedValue]:
    return [TimeStampedValue(float(time), value) for time, value in enumerate(values)]


def wanted(replicas: int, *backlog: float, partitions: int = 8) -> int:
    reports = {f"replica-{i}": [records] for i, records in enumerate(backlog)}
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


def test_an_intake_that_starts_with_no_replica_gets_one_though_none_can_report() -> None:
    assert wanted(0) == 1


def test_records_of_a_partition_that_moved_count_once() -> None:
    """Half of what the first replica had is the second's now; Serve's average of the first still counts nearly all."""
    reports = {"first": [9000.0] * 29 + [4500.0], "second": [4500.0]}
    assert LagPolicy(records_per_replica=5000)(context(2, reports))[0] == 2


@settings(max_examples=25, deadline=None)
@given(backlog=st.integers(0, 60_000), replicas=st.integers(1, 12), lookback=st.integers(1, 30))
def test_a_backlog_that_stays_brings_what_it_needs_in_one_step_and_then_nothing_changes(
    backlog: int, replicas: int, lookback: int
) -> None:
    """Serve's loop, a second a turn: replicas run, and share the backlog, ten seconds after they are wanted."""
    config = AutoscalingConfig(min_replicas=1, max_replicas=12, upscale_delay_s=15, downscale_delay_s=10_000)
    policy = _apply_autoscaling_config(LagPolicy(records_per_replica=5000))
    needed = min(12, max(replicas, math.ceil(backlog / 5000)))
    reports: list[list[float]] = [[] for _ in range(replicas)]
    target, ready_at, state, targets = replicas, 0, {}, []
    for now in range(120):
        if now == ready_at:
            reports.extend([] for _ in range(target - len(reports)))
        for each in reports:
            each.append(backlog / len(reports))
        latest = {str(i): each[-lookback:] for i, each in enumerate(reports)}
        with patch("ray.serve.autoscaling_policy.time.time", lambda now=now: float(now)):
            wanted, state = policy(context(target, latest, 12, config=config, policy_state=state))
        if wanted > target:
            target, ready_at = int(wanted), now + 10
        targets.append(target)
    assert sorted(set(targets)) == sorted({replicas, needed})


@given(st.integers(1, 64), st.lists(st.floats(0, 1e9), min_size=1, max_size=8), st.integers(1, 64))
def test_whatever_is_reported_there_is_one_and_no_more_than_partitions(
    replicas: int, backlog: list[float], partitions: int
) -> None:
    assert 1 <= wanted(replicas, *backlog, partitions=partitions) <= partitions


def test_serve_loads_the_policy_from_a_config_and_applies_its_delays() -> None:
    given: dict[str, Any] = {
        "policy_function": "worker.apps.autoscaling:LagPolicy",
        "policy_kwargs": {"records_per_replica": 10},
    }
    config = AutoscalingConfig(min_replicas=1, max_replicas=8, upscale_delay_s=0, policy=given)
    policy = _apply_autoscaling_config(_resolve_policy_callable(config.policy))

    assert policy(context(1, {"a": [35.0]}, config=config))[0] == 4


def test_a_target_of_no_records_is_refused() -> None:
    with pytest.raises(ValueError, match="records_per_replica is 0"):
        LagPolicy(records_per_replica=0)
