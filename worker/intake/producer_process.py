"""The producer in a process of its own.

Producing costs kafka-python about as much CPU as all else that the intake does, and Python runs one thread at a time.
A commit may also hang for good; a process can be killed, a thread cannot.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import structlog
from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata

from worker.intake.interpreter import tune_interpreter
from worker.intake.kafka_faults import open_error
from worker.intake.kafka_producer import Producer
from worker.intake.log import Fenced, LogError, Output, Partition
from worker.settings import KafkaSettings, TelemetrySettings
from worker.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 10.0
PARENT_CHECK_SECONDS = 1.0


class ProducerProcess:
    """A `Producer` in a process that ends with this one, however that ends. Belongs to one thread, but for `close`."""

    def __init__(self, settings: KafkaSettings, telemetry: TelemetrySettings) -> None:
        """Starts the process; `wait_until_ready` says whether the producer can be used."""
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,  # so that the terminal's signals do not reach it
            )
        self.pid = self._process.pid
        self._pipe.send((settings, telemetry))

    def wait_until_ready(self) -> None:
        """Returns when the producer can be used, and what an earlier one of its name left open is ended.

        Raises LogError when it cannot be used; the process has ended then.
        """
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def send(self, outputs: Sequence[Output]) -> None:
        """See `Producer.send`. Raises Fenced when the process has ended: what became of the outputs is unknown."""
        self._ask(("send", _plain(outputs)))

    def send_in_transaction(
        self, outputs: Sequence[Output], offsets: Mapping[Partition, tuple[int, str]], group: ConsumerGroupMetadata
    ) -> None:
        """See `Producer.send_in_transaction`; raises Fenced as `send` does."""
        self._ask(("send_in_transaction", _plain(outputs), dict(offsets), group))

    def close(self, patience_seconds: float = CLOSE_SECONDS) -> None:
        """Ends the process, by force if what it is doing does not end."""
        self._pipe.close()
        try:
            self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            if patience_seconds:
                log.warning("producer_killed", pid=self.pid, after_seconds=patience_seconds)
            self._process.kill()
            self._process.wait()

    def _ask(self, request: object) -> None:
        try:
            self._pipe.send(request)
        except OSError as failure:
            raise self._ended() from failure
        self._answer()

    def _answer(self) -> None:
        try:
            error = self._pipe.recv()
        except (EOFError, OSError) as failure:
            raise self._ended() from failure
        if error is not None:
            raise error

    def _ended(self) -> Fenced:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return Fenced(
            f"the producer's process has ended (exit code {self._process.returncode}); "
            "the outcome of what it was doing is unknown"
        )


def _plain(outputs: Sequence[Output]) -> list[tuple[object, ...]]:
    # named tuples take pickle three times as long
    return [tuple(output) for output in outputs]


def serve(pipe: Connection) -> None:
    """Does what comes through the pipe; answers None, or the error.

    Raises EOFError or ConnectionError when the worker has closed the pipe or was killed.
    """
    settings, telemetry = pipe.recv()
    configure_logging(telemetry)
    try:
        producer = Producer(settings)
    except KafkaError as error:
        pipe.send(open_error(error, settings))
        return
    tune_interpreter()
    try:
        pipe.send(None)
        while True:
            method, outputs, *rest = pipe.recv()
            answer: Exception | None = None
            try:
                getattr(producer, method)([Output(*output) for output in outputs], *rest)
            except LogError as error:
                answer = error
            except Exception as error:  # noqa: BLE001  # whatever it was, whether the commit happened is unknown
                answer = Fenced(f"unexpected {type(error).__name__}: {error}")
            pipe.send(answer)
    finally:
        producer.close()


def _end_after(parent: int) -> None:
    """Ends this process CLOSE_SECONDS after its parent, whatever it is doing.

    A producer that waits for a broker would never look at the closed pipe: it would live on without an owner, and open
    connection after connection.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    time.sleep(CLOSE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    # A signal to the whole process group is meant for the worker, which still has to drain.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(int(sys.argv[2]),), name="sluice-parent-watch", daemon=True).start()
    with Connection(int(sys.argv[1])) as inherited, suppress(EOFError, ConnectionError):
        serve(inherited)
