import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from schemas import FailureReason, FileReference, HttpReference, S3Reference
from worker.cli.errors import UsageError
from worker.cli.sources import ImageSource, Sources
from worker.settings.image_format import ImageFormat

OBJECTS = [
    S3Reference(bucket="b", key="in/", etag="0"),
    S3Reference(bucket="b", key="in/a.jpg", etag="1"),
    S3Reference(bucket="b", key="in/list.csv", etag="2"),
]


def listing(bucket: str, prefix: str) -> Iterable[S3Reference]:
    return [found for found in OBJECTS if found.bucket == bucket and found.key.startswith(prefix)]


def names(*arguments: str | Path) -> list[str]:
    return [source.name for source in Sources([str(argument) for argument in arguments], listing)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "deep/er/c.webp", "deep/a.avif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_folders_are_searched_in_the_order_of_names_and_only_for_images(tree: Path) -> None:
    sources = Sources([str(tree)], listing)

    assert [Path(source.name).relative_to(tree).as_posix() for source in sources] == [
        "a.png",
        "b.JPG",
        "deep/a.avif",
        "deep/er/c.webp",
    ]
    assert sources.skipped == 1
    assert sources.count() == 4


PICTURES = {
    "photo.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "clip.apng": b"\x89PNG\r\n\x1a\n",
    "no suffix": b"\xff\xd8\xff\xe0",
    "wrong.txt": b"GIF89a",
    "new.jxl": b"\xff\x0a",
    "empty.png": b"",
}


def test_what_is_an_image_by_its_content_or_its_name_is_taken(tmp_path: Path) -> None:
    for name, head in PICTURES.items():
        (tmp_path / name).write_bytes(head)
    for name in ("list.csv", "README"):
        (tmp_path / name).write_text("no image")
    sources = Sources([str(tmp_path)], listing)

    assert {Path(source.name).name for source in sources if source.reference} == set(PICTURES)
    assert (sources.skipped, sorted(sources.skipped_names)) == (
        2,
        [str(tmp_path / "README"), str(tmp_path / "list.csv")],
    )


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"II*\0\x08\0\0\0", "TIFF images are not read; add tiff to images.formats"),
        (b"8BPS\0\1", "Photoshop (PSD) images are not read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG images are not read"),
    ],
)
def test_an_image_that_cannot_be_read_is_a_problem_that_names_its_format(
    head: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "upload").write_bytes(head)
    (source,) = Sources([str(tmp_path)], listing)

    assert (source.reference, source.problem, source.reason) == (None, says, FailureReason.UNSUPPORTED_FORMAT)
    assert [source.reference for source in Sources([str(tmp_path)], listing, tuple(ImageFormat))] == (
        [FileReference(path=str(tmp_path / "upload"))] if "TIFF" in says else [None]
    )


def test_objects_without_a_suffix_are_taken(tree: Path) -> None:
    keys = ["in/5e0f", "in/a.heic", "in/a.csv", "in/b/", "in.d/7"]
    objects = [S3Reference(bucket="b", key=key) for key in keys]
    sources = Sources(["s3://b/in"], lambda _bucket, _prefix: objects)

    assert [source.name for source in sources] == ["s3://b/in/5e0f", "s3://b/in/a.heic", "s3://b/in.d/7"]
    assert sources.skipped_names == ["s3://b/in/a.csv"]


def test_arguments_keep_their_order_and_repetitions(tree: Path) -> None:
    b, a = tree / "b.JPG", tree / "a.png"

    assert names(b, a, b) == [str(b), str(a), str(b)]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tree: Path) -> None:
    (source,) = Sources([str(tree / "notes.txt")], listing)

    assert source.reference == FileReference(path=str(tree / "notes.txt"))


def test_patterns_find_files_and_folders(tree: Path) -> None:
    assert names(tree / "*.png") == [str(tree / "a.png")]
    assert names(tree / "**" / "*.webp") == [str(tree / "deep/er/c.webp")]
    assert names(tree / "dee*") == [str(tree / "deep/a.avif"), str(tree / "deep/er/c.webp")]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tree: Path) -> None:
    (tree / "a[1].png").write_bytes(b"x")

    assert names(tree / "a[1].png") == [str(tree / "a[1].png")]


def test_relative_names_stay_what_the_user_typed_and_refer_to_the_whole_path(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    (source,) = Sources(["a.png"], listing)

    assert source == ImageSource("a.png", FileReference(path=str(tree / "a.png")))


@pytest.mark.parametrize("argument", ["nowhere.jpg", "none/*.jpg", "", "s3://", "s3:///key", "http://", "https://a b"])
def test_an_argument_that_names_nothing_is_refused_at_once(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        Sources([argument], listing)


def test_a_prefix_yields_its_images_with_their_etags(tree: Path) -> None:
    sources = Sources(["s3://b/in/"], listing)

    assert list(sources) == [ImageSource("s3://b/in/a.jpg", OBJECTS[1])]
    assert sources.skipped == 1
    assert sources.count() is None


def test_an_object_that_is_named_is_taken_whatever_its_suffix() -> None:
    assert names("s3://b/in/list.csv") == ["s3://b/in/list.csv"]


def test_a_web_address_is_taken_as_it_is() -> None:
    (source,) = Sources(["https://example.com/a?b=c"], listing)

    assert source.reference == HttpReference(url="https://example.com/a?b=c")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (source,) = Sources([str(tmp_path)], listing)

    assert (source.reference, source.problem) == (None, "not a regular file")


def test_a_dangling_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (source,) = Sources([str(tmp_path)], listing)

    assert (source.reference, source.problem) == (None, "No such file or directory")


def test_a_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    (tmp_path / "\udcff.jpg").write_bytes(b"")
    (source,) = Sources([str(tmp_path)], listing)

    assert source.reference is None
    assert "not UTF-8" in source.problem


def test_folders_that_link_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)

    sources = Sources([str(tmp_path)], listing)
    assert [source.name for source in sources] == [str(tmp_path / "a.jpg")]
    assert sources.links == 1


@pytest.mark.timeout(20)
def test_patterns_through_links_that_lead_in_circles_end(tree: Path) -> None:
    (tree / "up").symlink_to(tree)
    (tree / "deep" / "up").symlink_to(tree)

    assert names(tree / "**" / "*.webp") == [str(tree / "deep/er/c.webp")]
    assert names(tree / "**" / "er" / "**" / "*.webp") == [str(tree / "deep/er/c.webp")]


@pytest.mark.parametrize("pattern", ["**", "**/*.webp", "deep/**", "deep/**/*", "d*/**/*.webp", "**/er/*", "*/er"])
def test_a_pattern_finds_each_image_once(pattern: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    found = names(pattern)

    assert "deep/er/c.webp" in found
    assert len(set(found)) == len(found)
    assert names(tree / pattern) == [str(tree / name) for name in found]


def test_a_pattern_leaves_hidden_folders_and_names_with_brackets_as_they_are(tree: Path) -> None:
    for name in (".thumbnails/t.webp", "a[1]/d.webp"):
        (tree / name).parent.mkdir()
        (tree / name).write_bytes(b"x")

    assert names(tree / "**" / "*.webp") == [str(tree / "a[1]/d.webp"), str(tree / "deep/er/c.webp")]


def test_a_link_that_cannot_be_followed_is_reported(tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to("x" * 300)
    (source,) = Sources([str(link)], listing)

    assert (source.reference, source.problem) == (None, "File name too long")
