"""A short run of the fuzz drill: every broken input ends in a verdict, a dead letter or a named error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops.drills.fuzz import TARGETS

RECORDS = ["events", "S3 notifications", "CloudEvents"]


@pytest.mark.parametrize("kinds", [RECORDS, [name for name in TARGETS if name not in RECORDS]], ids=["records", "rest"])
def test_a_few_hundred_broken_inputs_of_each_kind_end_as_they_should(kinds: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops.drills.fuzz", "--count", "300", "--seed", "7", "--out", str(tmp_path)]
    for kind in kinds:
        command += ["--only", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "fuzz.json").read_text())["rows"]
    assert [row["inputs"] for row in rows] == [name for name in TARGETS if name in kinds]
    assert all(row["findings"] == [] for row in rows)
    # A generator whose every input is refused at the first byte, or never, would test nothing.
    assert all(len(row["ended"]) > 1 for row in rows)
    assert "| 300 |" in (tmp_path / "fuzz.md").read_text()
