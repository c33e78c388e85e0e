"""Files that are replaced as a whole, so that no reader sees half of one, and a lock for compare-and-replace."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(target: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Writes a file beside the target, syncs it, and renames it over the target. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as part:
        try:
            part.write(content)
            part.flush()
            os.fsync(part.fileno())
            Path(part.name).chmod(mode)
            Path(part.name).replace(target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on a folder, against other processes too. Raises OSError."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there the lock holds within one process only
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
