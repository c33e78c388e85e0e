"""A worker as a process of its own, to be frozen, killed and stopped."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from ops.dev.ports import free_ports
from ops.dev.process import die_with_parent

SLUICE = Path(sys.executable).with_name("sluice")


class WorkerProcess:
    """`sluice up`, and the producer process that it starts."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """`arguments` are those of `sluice up`; `environment` is added to this process's own."""
        self.started = time.monotonic()
        self._is_told_to_end = False
        (self._port,) = free_ports(1)
        served = {"SLUICE_TELEMETRY__METRICS_PORT": str(self._port)}
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [SLUICE, "up", *arguments],
                stdout=out,
                stderr=out,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | served | dict(environment),
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def has_given_up(self) -> bool:
        """Whether it has ended though nobody told it to."""
        return not self._is_told_to_end and self._process.poll() is not None

    @property
    def status(self) -> int | None:
        """The exit status, once it has ended."""
        return self._process.poll()

    def problems(self) -> list[str]:
        """What `/healthz` says is wrong; empty also where nobody answers."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._port}/healthz", timeout=5.0)
        except httpx.HTTPError:
            return []
        return [str(reason) for reason in answer.json()["reasons"]]

    def resident_bytes(self) -> int:
        """Memory of the worker and its producer."""
        return sum(map(_resident_bytes, [self._process.pid, *self.producers()]))

    def processor_seconds(self) -> float:
        """What the worker and its producer have used so far."""
        return sum(map(_processor_seconds, [self._process.pid, *self.producers()]))

    def freeze(self) -> None:
        """Stops the worker and its producer where they are, as a paused virtual machine does."""
        self._signal([self._process.pid, *self.producers()], signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal([self._process.pid, *self.producers()], signal.SIGCONT)

    def freeze_producer(self) -> None:
        """Stops only the producer process: what a commit looks like that a broker does not answer."""
        self._signal(self.producers(), signal.SIGSTOP)

    def thaw_producer(self) -> None:
        self._signal(self.producers(), signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short."""
        self._is_told_to_end = True
        self._process.kill()
        self._process.wait()

    def stop(self, patience: float = 60.0) -> float:
        """SIGTERM; returns the seconds until the process has ended. Raises TimeoutExpired."""
        began = time.monotonic()
        self._is_told_to_end = True
        self._process.terminate()
        self._process.wait(patience)
        return time.monotonic() - began

    def end(self) -> None:
        """Ends it whatever its state."""
        if self.running:
            self.thaw()
            with suppress(subprocess.TimeoutExpired):
                self.stop(30.0)
            self.kill()

    def producers(self) -> list[int]:
        """The process ids of its children."""
        found: list[int] = []
        for tasks in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            with suppress(OSError):  # a thread may end meanwhile
                found += map(int, tasks.read_text().split())
        return found

    @staticmethod
    def _signal(pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _processor_seconds(pid: int) -> float:
    # The name may hold anything, brackets too; what follows it may not.
    _, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    user, system = rest.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_ended_children() -> float:
    """CPU time, in seconds, of this process's children that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
