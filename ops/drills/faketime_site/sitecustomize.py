"""Python imports this at its start in a process with a fake clock (ops.drills.fake_clock).

While libfaketime 0.9.10 leaves the monotonic clock alone, it makes every absolute `clock_nanosleep` fail with EINVAL,
which is what `time.sleep` calls. So `time.sleep` waits with `select` there.
"""

import select
import time


def _sleep(seconds: float, /) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]  # it takes anything that is a number
