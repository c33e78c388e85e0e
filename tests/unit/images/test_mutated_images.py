"""A short run of `python -m ops.drills.mutations`, whose long run is in ops/drills/mutations.md."""

from ops.drills.mutated_files import originals
from ops.drills.mutations import run


def test_mutated_files_of_every_format_end_in_pixels_or_in_a_reason_and_never_end_the_decoder() -> None:
    files = originals(96, 64)
    rows = run(files, 15 * len(files), seed=20)
    assert rows.keys() == files.keys()
    for name, row in rows.items():
        assert row.is_good, (name, row)
        assert row.pixels + sum(row.reasons.values()) == row.files == 15
        if name.startswith("png"):
            assert row.pixels, "a wrong checksum hides what is behind it"
    assert sum(row.pixels for row in rows.values()) > 30, "some are still images"
    assert all(row.reasons for row in rows.values()), "some are not"
