"""Many reviewers by HTTP on real Kafka and Redis: every item is one person's, every decision is in the topic.

How fast that is, ops/benchmarks/desk_benchmark.py measures, whose reviewers these are.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ops.benchmarks.desk_benchmark import check, decisions_in_topic, invitations, publish, review, wait_for_items
from worker.review.http.serving import open_and_serve_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import (
    FileSettings,
    KafkaSettings,
    RedisSettings,
    ReviewSettings,
    Settings,
    TopicSettings,
    WebSettings,
)

REVIEWERS = 8
DECISIONS = 6


def test_reviewers_who_work_at_once_never_share_an_item_and_lose_no_decision(
    kafka_server: Any, redis_server: Any, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    settings = Settings(
        kafka=KafkaSettings(
            bootstrap_servers=kafka_server.bootstrap_servers,
            topics=TopicSettings(**{name: new_topic(partitions=2) for name in TopicSettings.model_fields}),
        ),
        redis=RedisSettings(url=redis_server.url, timeout_seconds=10),
        files=FileSettings(roots=(SAMPLE_IMAGES,)),
        review=ReviewSettings(audit_share=0.0, duplicate_cosine=1.0, lease_seconds=600),
        web=WebSettings(port=0),
    )
    items = REVIEWERS * DECISIONS
    publish(settings, items)
    tokens = invitations(tmp_path, REVIEWERS)
    with open_and_serve_desk(settings, None, tmp_path) as served:
        wait_for_items(served, items)
        outcome = asyncio.run(review(served.address, tokens, DECISIONS, pace_seconds=0.0))
        check(outcome, decisions_in_topic(settings))
    # As fast as they can, some hold items when the queue runs dry for others; nobody decides what another holds.
    assert len(outcome.decided) > items // 2
    assert len(set(outcome.decided.values())) > 1
