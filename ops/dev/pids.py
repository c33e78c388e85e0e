"""Processes that an earlier run started, identified by id and start time, so that a reused id is never mistaken for
one.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path


def birth(pid: int) -> str | None:
    """When the process began, in the system's own words; None when no such process runs."""
    if not Path("/proc/self/stat").exists():
        told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        return told or None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else fields[18]  # proc(5): starttime is the 22nd of all


def end(pid: int, born: str, *, timeout_seconds: float = 20.0) -> bool:
    """Asks the process to stop, kills it when it takes too long. Returns whether it ran at all."""
    if birth(pid) != born:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while birth(pid) == born and time.monotonic() < deadline:
            time.sleep(0.05)
        if birth(pid) == born:
            os.kill(pid, signal.SIGKILL)
    return True
