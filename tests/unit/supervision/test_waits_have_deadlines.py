"""No code waits for another thread, process or server without a deadline: what never answers must not hang a request.

Found in the syntax tree: calls of the methods below that have neither a positional argument nor a timeout. `with lock:`
is not looked at: what a lock guards must be short, or use `worker.review.waiting.held`.
"""

import ast
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[3] / "worker"

PYTHONS = {"get", "acquire", "wait", "join", "result", "communicate"}
"""Bounded by `timeout` or `blocking`, or by any positional argument."""
KAFKAS = {"position", "end_offsets", "beginning_offsets", "offsets_for_times"}
"""Bounded by `timeout_ms`."""
NEVER_BOUNDED = {"recv"}

ALLOWED = {
    "worker/apps/intake.py: self._worker.join()": "bounded inside: the drain time and a few seconds",
    "worker/apps/intake.py: before.join()": "a thread of its own, whose only work is to wait for the one it replaces",
    "worker/apps/serve_engine.py: CALLER.get()": "a variable of the context, not a queue",
    "worker/apps/worker_thread.py: self._settled.wait()": "set in a finally of the thread that is waited for",
    "worker/apps/serve_engine.py: response.result(timeout_s=max(0.0, deadline - self._clock()))": "Ray's timeout_s",
    "worker/backfill/run.py: ended.result()": "a future of a pool that has shut down, of a command",
    "worker/cli/desk_serve.py: stop.wait()": "a command that serves until it is told to stop",
    "worker/demo/run.py: ended.result()": "a future that has ended",
    "worker/intake/committer.py: self._batches.get()": "the thread's own queue; close() puts an end marker into it",
    "worker/intake/kafka_log_base.py: self._free_polls.acquire()": "back-pressure of the reader; close() releases it",
    "worker/intake/producer_process.py: pipe.recv()": "the child's loop; the pipe ends when its parent does",
    "worker/intake/producer_process.py: self._pipe.recv()": "after poll() with a timeout",
    "worker/intake/producer_process.py: self._process.wait()": "after kill()",
    "worker/model/evaluation/features.py: future.result()": "a command with a progress bar",
    "worker/replay/run.py: ended.result()": "a future of a pool that has shut down, of a command",
    "worker/replay/window.py: consumer.end_offsets(partitions)": "kafka-python's own request timeout of 30 s",
    "worker/replay/window.py: consumer.offsets_for_times(dict.fromkeys(partitions, _milliseconds(time)))": "as above",
    "worker/review/http/events.py: queue.get()": "within asyncio.timeout_at",
    "worker/review/http/thread_budget.py: self._limiter.get()": "a variable of the event loop, not a queue",
    "worker/scoring/openvino_graph.py: self._requests.get()": "as many requests as batches in flight: one is free soon",
    "worker/scoring/tensorrt_graph.py: self._free.get()": "as many contexts as batches in flight: one is free soon",
    "worker/scoring/torch_engine.py: done.wait()": "the GPU's stream, on the thread of one batch",
    "worker/scoring/torch_engine.py: started.result()": "the launch of one batch by a thread that does nothing else",
    "worker/telemetry/server.py: self._thread.join()": "after shutdown(), which waits for the same thread",
    "worker/cli/stream/kafka.py: consumer.position(partition)": "a command that follows a topic until Ctrl-C",
    "worker/cli/stream/kafka.py: consumer.beginning_offsets(partitions)": "kafka-python's own request timeout of 30 s",
    "worker/cli/stream/kafka.py: consumer.end_offsets(partitions)": "kafka-python's own request timeout of 30 s",
}
"""Waits that need no deadline of their own, with the reason."""


def waits_without_deadline(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, named = node.func.attr, {keyword.arg for keyword in node.keywords}
        if (
            (name in PYTHONS and not node.args and not named & {"timeout", "blocking", None})
            or (name in KAFKAS and not named & {"timeout_ms", None})
            or name in NEVER_BOUNDED
        ):
            found.append(ast.unparse(node))
    return found


def all_waits() -> set[str]:
    return {
        f"{path.relative_to(WORKER.parent).as_posix()}: {wait}"
        for path in sorted(WORKER.rglob("*.py"))
        for wait in waits_without_deadline(path.read_text())
        if "_subscription.position(" not in wait  # kafka-python's state in memory
    }


def test_every_wait_has_a_deadline_or_a_reason() -> None:
    new = sorted(all_waits() - ALLOWED.keys())
    assert new == [], "give these a timeout, or a reason in ALLOWED"


@pytest.mark.parametrize(
    "wait",
    [
        "queue.get()",
        "lock.acquire()",
        "event.wait()",
        "thread.join()",
        "future.result()",
        "process.communicate()",
        "pipe.recv()",
        "consumer.position(partition)",
    ],
)
def test_a_wait_without_a_deadline_is_found(wait: str) -> None:
    assert waits_without_deadline(f"def f():\n    return {wait}") == [wait]


@pytest.mark.parametrize(
    "wait",
    [
        "queue.get(timeout=1)",
        "mapping.get(key)",
        "lock.acquire(timeout=2)",
        "event.wait(0.5)",
        "', '.join(names)",
        "future.result(timeout=3)",
        "consumer.position(partition, timeout_ms=100)",
        "anything(**options)",
    ],
)
def test_what_does_not_wait_without_end_is_left_alone(wait: str) -> None:
    assert waits_without_deadline(wait) == []
