"""A group member in a process of its own, to be stopped and killed: `python log_member.py KIND JSON TOPIC`.

KIND is sqlite, kafka-python or librdkafka.

It prints "assigned N" as soon as it has partitions, then reads commands from standard input while it polls: `commit`
commits all it has received, each record's value as an output, and prints "committed" or the error's name; `commit N`
does so N seconds later, without polling in between.
"""

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from worker.intake.log import Log, LogError, Output, Partition
from worker.settings import KafkaSettings, TelemetrySettings


def open_log(kind: str, options: dict[str, Any]) -> Log:
    if kind != "sqlite":
        from worker.intake.kafka_client import open_kafka_log

        settings = KafkaSettings.model_validate(options)
        return open_kafka_log(settings, TelemetrySettings(), topics=[settings.topics.images])
    from worker.intake.sqlite_log import SqliteLog

    return SqliteLog(Path(options.pop("path")), **options)


def main() -> None:
    log = open_log(sys.argv[1], json.loads(sys.argv[2]))
    output_topic = sys.argv[3]
    owned: set[Partition] = set()
    values: list[bytes] = []
    offsets: dict[Partition, int] = {}
    told = 0
    while True:
        if select.select([sys.stdin], [], [], 0)[0]:
            # straight from the pipe: a member that was asleep must not poll before it commits
            command = os.read(sys.stdin.fileno(), 100).split()
            if not command:
                return
            time.sleep(float(b"".join(command[1:]) or 0))
            try:
                log.commit([Output(output_topic, value) for value in values], offsets)
                print("committed", flush=True)
            except LogError as error:
                print(type(error).__name__, flush=True)
        poll = log.poll(0.05)
        owned = (owned - poll.lost - poll.revoked) | poll.assigned
        log.release(poll.revoked)
        for record in poll.records:
            values.append(record.value or b"")
            offsets[record.partition] = record.offset + 1
        if owned and len(values) != told:
            told = len(values)
            print(f"received {told}", flush=True)


main()
