"""A disk so small that it can be filled: a tmpfs that root mounts."""

import errno
import os
import subprocess
from pathlib import Path

from ops.drills.stream_bench import DrillUnavailable

MEBIBYTES = 24
_PART = b"\0" * 65536


class SmallDisk:
    """A mounted tmpfs. Use it as a context manager. Raises DrillUnavailable where this process may mount nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "small-disk"
        self._ballast = self.path / "ballast"

    def __enter__(self) -> "SmallDisk":
        self.path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(self.path)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            told = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise DrillUnavailable(f"a small disk cannot be mounted here, which only root may do: {told}") from error
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self) -> None:
        """Takes all the space that is left, as another program would. May be called again while it fills up."""
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (len(_PART), 4096, 1):
                while _written(handle, _PART[:size]):
                    pass
        finally:
            os.close(handle)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


def _written(handle: int, part: bytes) -> bool:
    try:
        return os.write(handle, part) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
