"""How benchmarks tell the processors' time of each process."""

import subprocess

from ops.benchmarks.processes import processor_seconds

BUSY = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; read line; true"


def test_the_time_of_a_child_of_a_child_is_counted_under_its_name() -> None:
    started = {"executable": "/bin/sh", "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["a-parent", "-c", f"({BUSY}); true"], **started) as parent:  # type: ignore[call-overload]
        assert parent.stdout.readline() == b"done\n"
        seconds = processor_seconds()
        parent.communicate(b"\n")
    assert 0.05 < seconds["a-parent"] < 60.0
    assert seconds["this benchmark"] > 0
    assert "a-parent" not in processor_seconds()
