"""The desk at the end of the demo: open until a key is pressed, where there are keys."""

import os
import pty
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

CODE = "from pathlib import Path; from worker.cli.demo_desk import show_desk; from worker.settings import Settings; \
show_desk(Settings(), Path({folder!r}))"
PATIENCE = 60.0


def test_on_a_terminal_it_stays_open_until_a_key_is_pressed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(
        [sys.executable, "-c", CODE.format(folder=str(tmp_path))], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        said = ""
        deadline = time.monotonic() + PATIENCE
        while "press any key" not in said and time.monotonic() < deadline:
            said += os.read(ours, 4096).decode()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
        address = re.search(r"review desk: (http://127\.0\.0\.1:\d+)", plain)
        assert address is not None, plain
        assert "#invitation=" in plain
        with urllib.request.urlopen(address[1]) as page:
            assert b"Sluice" in page.read()
        os.write(ours, b"x")
        assert demo.wait(PATIENCE) == 0
    finally:
        demo.kill()
        demo.wait()
        os.close(ours)


def test_without_a_terminal_it_ends_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(folder=str(tmp_path))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []
