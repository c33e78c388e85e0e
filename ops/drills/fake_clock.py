"""A clock of its own for one process, which can jump: by libfaketime (Debian's package `faketime`)."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.drills.stream_bench import DrillUnavailable

_SITE = Path(__file__).with_name("faketime_site")
_LIBRARY = "faketime/libfaketimeMT.so.1"
_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")


class FakeClock:
    """The wall clock of the processes that have `environment`. Their monotonic clock goes on, as when an administrator
    or a time server sets a machine's clock. Raises DrillUnavailable without libfaketime."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = _find_library()
        self.jump_to(0)

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "PYTHONPATH": os.pathsep.join([str(_SITE), *sys.path]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds until a jump is noticed
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump_to(self, seconds: int) -> None:
        """Sets the clock so far ahead of the true time; behind it when negative."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(f"{seconds:+d}\n")
        scratch.replace(self._file)


def _find_library() -> Path:
    for folder in map(Path, _FOLDERS):
        for found in (folder / _LIBRARY, *folder.glob(f"*/{_LIBRARY}")):
            if found.exists():
                return found
    raise DrillUnavailable("libfaketime is not there: install it (Debian: apt-get install faketime)")
