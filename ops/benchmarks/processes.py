"""What this process and all below it have used of the processors; Linux only, from /proc."""

import os
from collections import defaultdict
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds() -> dict[str, float]:
    """By what a process calls itself, a replica by its deployment; those that have ended are not counted."""
    used: dict[int, tuple[str, float]] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The name may hold anything, brackets too; what follows it may not.
            _, _, rest = (folder / "stat").read_text().rpartition(")")
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:  # it has ended
            continue
        fields = rest.split()
        children[int(fields[1])].append(int(folder.name))
        used[int(folder.name)] = (_name(title), (int(fields[11]) + int(fields[12])) / _TICK)
    seconds: defaultdict[str, float] = defaultdict(float)
    left = [os.getpid()]
    while left:
        pid = left.pop()
        name, its_own = used.get(pid, ("", 0.0))
        seconds["this benchmark" if pid == os.getpid() else name] += its_own
        left += children[pid]
    return dict(seconds)


def _name(title: str) -> str:
    """`ray::ServeReplica:intake:intake` is `intake`, /usr/bin/java is `java`."""
    if title.startswith("ray::ServeReplica:"):
        return title.split(":")[-1].partition(".")[0]
    return Path(title).name
