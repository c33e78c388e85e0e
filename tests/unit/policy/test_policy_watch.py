"""A policy that changes while the worker runs: a good one comes into force, a bad one is told and changes nothing."""

import os
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from worker.policy import PolicyError
from worker.policy.errors import PolicyConflict, PolicyReadOnly
from worker.policy.place import FilePlace, ShippedPlace
from worker.policy.text import PolicyText
from worker.policy.watch import PolicyWatch
from worker.supervision import Supervisor

PATIENCE = 30.0


def text(version: str, default: str = "pass") -> bytes:
    return (
        f"schema: sluice.policy/1\nversion: '{version}'\nrules:\n  - name: default\n    route: {{action: {default}}}\n"
    ).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_bytes(text("1"))
    return path


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


def test_another_policy_at_its_place_comes_into_force(file: Path) -> None:
    watch = PolicyWatch(FilePlace(file), {})
    before = watch.active
    watch.look()
    assert watch.active is before
    file.write_bytes(text("2", "reject"))
    watch.look()
    assert watch.active.live.version == "2"
    assert watch.active.live.digest != before.live.digest


def test_a_text_that_only_looks_different_changes_nothing_in_force(file: Path) -> None:
    watch = PolicyWatch(FilePlace(file), {})
    before = watch.active
    file.write_bytes(b"# a remark\n" + text("1"))
    watch.look()
    assert watch.active is before
    assert watch.troubles() == ()


def test_a_text_that_is_no_policy_never_replaces_one_and_is_logged_once(file: Path, supervisor: Supervisor) -> None:
    watch = PolicyWatch(FilePlace(file), {})
    watch.start(supervisor)
    supervisor.close()
    file.write_bytes(b"schema: sluice.policy/1\nversion: '2'\nrules: []\n")
    with capture_logs() as logs:
        for _ in range(3):
            watch.look()
    assert watch.active.live.version == "1"
    assert [entry["event"] for entry in logs] == ["policy_refused"]
    assert watch.troubles()[0].startswith(f"policy: {file}:3: rules")
    file.write_bytes(text("3"))
    watch.look()
    assert watch.active.live.version == "3"
    assert watch.troubles() == ()


def test_a_policy_that_vanishes_stays_in_force_and_its_return_ends_the_trouble(file: Path) -> None:
    watch = PolicyWatch(FilePlace(file), {})
    content = file.read_bytes()
    file.unlink()
    watch.look()
    assert watch.active.live.version == "1"
    assert "No such file" in watch.troubles()[0]
    file.write_bytes(content)
    watch.look()
    assert watch.troubles() == ()


def test_a_bad_text_that_was_out_of_reach_is_still_told_to_be_bad(file: Path) -> None:
    watch = PolicyWatch(FilePlace(file), {})
    file.write_bytes(b"rules: []\n")
    watch.look()
    file.rename(file.with_suffix(".away"))
    watch.look()
    assert "No such file" in watch.troubles()[0]
    file.with_suffix(".away").rename(file)
    watch.look()
    assert "No such file" not in watch.troubles()[0]


def test_a_live_policy_that_is_none_keeps_the_worker_from_starting(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        PolicyWatch(FilePlace(tmp_path / "nowhere.yaml"), {})


def test_a_pipe_in_a_policys_place_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "policy.yaml")
    with pytest.raises(PolicyError, match=r"policy\.yaml: is a pipe or a device"):
        PolicyWatch(FilePlace(tmp_path / "policy.yaml"), {})


def test_a_shadow_that_is_none_is_told_and_joins_once_it_is_one(file: Path, tmp_path: Path) -> None:
    shadow = tmp_path / "stricter.yaml"
    watch = PolicyWatch(FilePlace(file), {"stricter": FilePlace(shadow)})
    assert watch.active.shadows == {}
    assert watch.troubles()[0].startswith("shadow policy stricter: ")
    shadow.write_bytes(text("s"))
    watch.look()
    assert watch.active.shadows["stricter"].version == "s"
    assert watch.active.live.version == "1"


def test_what_is_in_force_and_what_is_refused_is_logged_when_the_watch_starts_and_not_before(
    file: Path, tmp_path: Path, supervisor: Supervisor
) -> None:
    with capture_logs() as before:
        watch = PolicyWatch(FilePlace(file), {"stricter": FilePlace(tmp_path / "nowhere.yaml")})
    with capture_logs() as at_start:
        watch.start(supervisor)
        supervisor.close()
    assert before == []
    assert [(entry["event"], entry["policy"]) for entry in at_start] == [
        ("policy_in_force", "policy"),
        ("policy_refused", "shadow policy stricter"),
    ]


def test_a_store_whose_client_fails_in_an_unknown_way_does_not_end_the_watch(file: Path) -> None:
    class Moody(FilePlace):
        broken = False

        def read(self, known: PolicyText | None = None) -> PolicyText:
            if self.broken:
                raise RuntimeError("a bug in a client")
            return super().read(known)

    place = Moody(file)
    watch = PolicyWatch(place, {})
    place.broken = True
    watch.look()
    assert "a bug in a client" in watch.troubles()[0]


def test_the_watch_looks_by_itself_once_started(
    file: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.policy.watch.LOOK_SECONDS", 0.01)
    watch = PolicyWatch(FilePlace(file), {})
    watch.start(supervisor)
    try:
        file.write_bytes(text("2"))
        deadline = time.monotonic() + PATIENCE
        while watch.active.live.version != "2" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watch.active.live.version == "2"
    finally:
        supervisor.close()


def test_the_policy_that_ships_stands_in_until_one_is_saved(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "data" / "policy.yaml", may_be_absent=True)
    watch = PolicyWatch(place, {})
    shipped = place.read()
    assert shipped.shipped
    place.replace(shipped.digest, text("mine"))
    watch.look()
    assert watch.active.live.version == "mine"
    assert not place.read().shipped


def test_who_has_not_seen_what_is_there_does_not_replace_it(file: Path) -> None:
    place = FilePlace(file)
    seen = place.read()
    file.write_bytes(text("somebody else's"))
    with pytest.raises(PolicyConflict) as refused:
        place.replace(seen.digest, text("mine"))
    assert refused.value.present.content == text("somebody else's")
    assert file.read_bytes() == text("somebody else's")


def test_of_many_who_replace_the_same_text_one_succeeds(file: Path) -> None:
    seen = FilePlace(file).read().digest
    outcomes: list[str] = []
    together = threading.Barrier(8)

    def save(number: int) -> None:
        together.wait()
        try:
            FilePlace(file).replace(seen, text(f"of {number}"))
            outcomes.append("saved")
        except PolicyConflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["saved"]
    assert [path.name for path in file.parent.iterdir()] == ["policy.yaml"]


def test_a_link_goes_on_to_point_where_it_does_and_modes_are_kept(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    place = FilePlace(link)
    place.replace(place.read().digest, text("2"))
    assert link.is_symlink()
    assert file.read_bytes() == text("2")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_place_that_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        FilePlace(tmp_path).read()
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyReadOnly, match="must be allowed to write there"):
        FilePlace(tmp_path / "file" / "policy.yaml").replace("sha256:0", text("1"))


def test_the_policy_that_ships_cannot_be_replaced_and_tells_what_to_set() -> None:
    place = ShippedPlace()
    with pytest.raises(PolicyReadOnly, match="set `policy`"):
        place.replace(place.read().digest, text("1"))
