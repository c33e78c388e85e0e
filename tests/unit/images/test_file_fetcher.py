"""Files: below the roots, and nothing else."""

import errno
import os
import threading
from pathlib import Path

import pytest

from schemas import FailureReason, FileReference, InlineReference
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch.file import FileFetcher
from worker.images.fetch.inline import InlineFetcher


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"image a")
    (folder / "deep" / "er" / "b.jpg").write_bytes(b"image b")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return folder


def fetch(path: str | Path, *roots: Path, max_bytes: int = 100) -> bytes:
    return FileFetcher(roots, max_bytes=max_bytes).fetch(FileReference(path=str(path))).data


def refusal(path: str | Path, *roots: Path, max_bytes: int = 100) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetch(path, *roots, max_bytes=max_bytes)
    return caught.value


def test_a_file_below_a_root_is_read(root: Path) -> None:
    assert fetch(root / "a.jpg", root) == b"image a"
    assert fetch(root / "deep" / "er" / "b.jpg", root) == b"image b"


def test_a_relative_path_is_looked_for_below_each_root(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert fetch("deep/er/b.jpg", other, root) == b"image b"
    assert fetch("deep/../a.jpg", other, root) == b"image a"


def test_dots_and_links_that_stay_below_a_root_are_followed(root: Path) -> None:
    (root / "link.jpg").symlink_to("deep/er/b.jpg")
    (root / "folder").symlink_to(root / "deep")
    assert fetch(root / "deep" / ".." / "a.jpg", root) == b"image a"
    assert fetch(root / "link.jpg", root) == b"image b"
    assert fetch(root / "folder" / "er" / "b.jpg", root) == b"image b"


def test_a_root_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    assert fetch(link / "a.jpg", link) == b"image a"


def test_nothing_outside_the_roots_is_read(root: Path, tmp_path: Path) -> None:
    (root / "out.jpg").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to("..")
    sibling = tmp_path / "images-too"
    sibling.mkdir()
    (sibling / "c.jpg").write_bytes(b"image c")
    for path in (
        tmp_path / "secret.txt",
        "/etc/passwd",
        "../secret.txt",
        root / ".." / "secret.txt",
        root / "out.jpg",
        root / "up" / "secret.txt",
        sibling / "c.jpg",
        "/no/such/file",
    ):
        error = refusal(path, root)
        assert error.reason is FailureReason.REFERENCE_REFUSED, path
        assert str(root) in str(error)


def test_without_roots_nothing_is_read_and_the_message_says_what_to_set(root: Path) -> None:
    error = refusal(root / "a.jpg")
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "files.roots" in str(error)


@pytest.mark.parametrize("path", ["missing.jpg", "a.jpg/b.jpg", "x" * 300, "missing/a.jpg"])
def test_a_file_that_is_not_there_is_not_found(root: Path, path: str) -> None:
    assert refusal(root / path, root).reason is FailureReason.IMAGE_NOT_FOUND


def test_a_loop_of_links_is_refused(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    assert refusal(root / "loop", root).reason is FailureReason.REFERENCE_REFUSED


def test_a_pipe_is_refused_and_does_not_hold_the_thread(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    thread = threading.Thread(target=refusal, args=(root / "pipe.jpg", root), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert refusal(root / "pipe.jpg", root).reason is FailureReason.REFERENCE_REFUSED


@pytest.mark.parametrize("path", ["deep", "."])
def test_a_folder_is_refused(root: Path, path: str) -> None:
    error = refusal(root / path, root)
    assert error.reason is FailureReason.REFERENCE_REFUSED
    assert "regular file" in str(error)


def test_a_device_is_refused() -> None:
    assert refusal("/dev/zero", Path("/dev")).reason is FailureReason.REFERENCE_REFUSED


def open_fails(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As if the system said so; the tests run as root, who is never denied anything."""

    def fail(path: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", fail)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_file_without_permission_is_denied(root: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    open_fails(monkeypatch, code)
    assert refusal(root / "a.jpg", root).reason is FailureReason.ACCESS_DENIED


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_disk_that_fails_is_transient(root: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    open_fails(monkeypatch, code)
    with pytest.raises(TransientFetchError, match=r"a\.jpg.*could not be read"):
        fetch(root / "a.jpg", root)


def test_a_file_of_more_bytes_than_allowed_is_too_large(root: Path) -> None:
    assert fetch(root / "a.jpg", root, max_bytes=7) == b"image a"
    error = refusal(root / "a.jpg", root, max_bytes=6)
    assert error.reason is FailureReason.IMAGE_TOO_LARGE
    assert "7 bytes" in str(error)
    assert "images.max_bytes is 6" in str(error)


def test_a_folder_swapped_for_a_link_after_the_check_leads_nowhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "er").mkdir()
    (tmp_path / "er" / "b.jpg").write_bytes(b"secret")
    open_ = os.open

    def swap_then_open(path: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if path == "deep":
            (root / "deep").rename(root / "moved")
            (root / "deep").symlink_to(tmp_path)
        return open_(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises(ImageError):
        fetch(root / "deep" / "er" / "b.jpg", root)


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("a.jpg", "deep/er/b.jpg", "deep", "missing.jpg", "/etc/passwd"):
        for _ in range(5):
            try:
                fetch(path, root)
            except ImageError:
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_inline_image_comes_back_and_is_held_to_the_limit() -> None:
    reference = InlineReference(bytes=b"0123456789")
    assert InlineFetcher(max_bytes=10).fetch(reference).data == b"0123456789"
    with pytest.raises(ImageError, match=r"images\.max_bytes is 9") as caught:
        InlineFetcher(max_bytes=9).fetch(reference)
    assert caught.value.reason is FailureReason.IMAGE_TOO_LARGE
