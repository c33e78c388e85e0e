"""kafka-python's private parts: used in one file, in the shape that they have now, and only for the pinned version."""

import ast
import inspect
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.base import BaseCoordinator
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
THE_FILE = "worker/intake/kafka_python_fixes.py"

PRIVATE_METHODS = [
    (BaseCoordinator, "_send_heartbeat_request", ()),
    (BaseCoordinator, "reset_generation", ()),
    (ConsumerCoordinator, "need_rejoin", ()),
    (ConsumerCoordinator, "fetch_committed_offsets_async", ("partitions",)),
    (
        ConsumerCoordinator,
        "_on_join_complete_async",
        ("generation", "member_id", "protocol", "member_assignment_bytes"),
    ),
    (TransactionManager, "_complete_transaction", ()),
    (KafkaNetClient, "await_ready", ("node_id", "timeout_ms")),
    (KafkaConnectionManager, "call_soon", ("coro",)),
    (KafkaConnectionManager, "run", ("coro",)),
    (KafkaConnectionManager, "send", ("request",)),
    (KafkaConnectionManager, "get_connection", ("node_id", "timeout_ms", "pop_on_close", "refresh_metadata_on_err")),
    (KafkaProducer, "_unregister_cleanup", ()),
    (Sender, "force_close", ()),
]
PRIVATE_ATTRIBUTES = [
    (KafkaConsumer, {"_client", "_coordinator", "_fetcher", "_manager", "_subscription"}),
    (KafkaProducer, {"_closed", "_sender", "_transaction_manager"}),
    (KafkaAdminClient, {"_client", "_manager"}),
    (KafkaNetClient, {"_manager", "_net"}),
    (KafkaConnectionManager, {"_net", "broker_version", "cluster"}),
    (Fetcher, {"_next_partition_records"}),
    (Sender, {"_client"}),
    (BaseCoordinator, {"_join_task", "rejoin_needed", "rejoining"}),
    (ConsumerCoordinator, {"_assignment_snapshot", "_metadata_snapshot", "_offset_fetch_futures"}),
    (TransactionManager, {"_pending_txn_offset_commits"}),
]
MEANT_FOR_SUBCLASSES = {"AsyncConsumerRebalanceListener", "AbstractTokenProvider"}


@pytest.mark.parametrize(("owner", "name", "parameters"), PRIVATE_METHODS, ids=lambda value: str(value)[-40:])
def test_a_private_method_is_where_it_was_and_takes_what_it_took(
    owner: type, name: str, parameters: tuple[str, ...]
) -> None:
    assert set(inspect.signature(getattr(owner, name)).parameters) >= set(parameters)


@pytest.mark.parametrize(("owner", "names"), PRIVATE_ATTRIBUTES, ids=lambda value: getattr(value, "__name__", ""))
def test_private_attributes_are_set_where_they_were(owner: type, names: set[str]) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    written = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert names <= written | set(dir(owner))


def test_no_other_file_uses_what_is_private_in_kafka_python() -> None:
    found = {
        str(file.relative_to(ROOT)): uses
        for file in ROOT.glob("worker/**/*.py")
        if "kafka" in (source := file.read_text()) and (uses := set(_private_uses(ast.parse(source))))
    }
    assert found.keys() == {THE_FILE}, found


def test_pyproject_allows_only_the_version_that_was_tried() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [kafka] = [Requirement(text) for text in dependencies if text.startswith("kafka-python")]
    major, minor, patch = version("kafka-python").split(".")
    assert kafka.specifier.contains(version("kafka-python"))
    assert not kafka.specifier.contains(f"{major}.{minor}.{int(patch) + 1}")


def _private_uses(tree: ast.Module) -> Iterator[str]:
    """Private attributes of objects that are not our own, and classes that inherit from the library's."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kafka"
        for alias in node.names
    }
    for node in ast.walk(tree) if imported else ():
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls", "super()", "KafkaError", "os") and node.attr != "_replace":
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.ClassDef):
            yield from (
                f"class {node.name}({base})"
                for base in map(ast.unparse, node.bases)
                if base in imported - MEANT_FOR_SUBCLASSES
            )
