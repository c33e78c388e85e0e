"""The commands as a user meets them, with the model and the policy that ship."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import worker
from tests.unit.images.test_refused_images import MAKERS
from worker.cli.errors import EXIT_CODES
from worker.cli.main import app
from worker.samples.sample import load_samples

SAMPLES = [sample.path for sample in load_samples()]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def sluice(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(SAMPLES[0].read_bytes()[:3000])
    return path


def test_score_writes_a_line_an_image_in_the_order_given(tmp_path: Path) -> None:
    result = sluice("score", *SAMPLES[:3], SAMPLES[0], "--output", "new/scores.jsonl")
    written = lines((tmp_path / "new" / "scores.jsonl").read_text())

    assert result.exit_code == 0
    assert [line["image"] for line in written] == [str(path) for path in (*SAMPLES[:3], SAMPLES[0])]
    assert all(1 <= line["quality"] <= 5 for line in written)
    assert written[0]["quality"] == pytest.approx(written[3]["quality"], abs=0.02)
    assert all(line["model"].startswith("sha256:") and line["route"]["action"] for line in written)
    assert "4 scored" in result.stdout


def test_an_animation_that_turns_to_noise_goes_to_review(tmp_path: Path) -> None:
    (good,) = (path for path in SAMPLES if path.stem == "xl2.2_normal_032")
    with Image.open(good) as sample:
        clean = sample.convert("RGB")
    random = np.random.default_rng(1)
    noise = [Image.fromarray(random.integers(0, 256, (*clean.size[::-1], 3), dtype=np.uint8)) for _ in range(3)]
    clean.save(tmp_path / "a.webp", save_all=True, append_images=noise, quality=90)
    clean.save(tmp_path / "b.webp", quality=90)
    result = sluice("score", "a.webp", "b.webp", "--output", "-")
    moving, still = lines(result.stdout)

    assert result.exit_code == 0
    assert (still["route"]["action"], moving["route"]["action"], moving["scores"]["frames"]) == ("pass", "review", 4)
    assert moving["scores"]["worst_frame"] > 0
    assert moving["quality"] < still["quality"] - 1


def test_a_folder_of_one_file_of_each_format_is_scored_whole(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for image_format, make in MAKERS.items():
        (tmp_path / "folder" / image_format.value).write_bytes(make())
    result = sluice("score", "folder", "--output", "-")

    assert result.exit_code == 0
    assert len([line for line in lines(result.stdout) if line["quality"]]) == len(MAKERS) == 10


def test_a_broken_file_is_reported_and_does_not_stop_the_others(broken: Path) -> None:
    result = sluice("score", broken, SAMPLES[0], "--output", "-")
    first, second = lines(result.stdout)

    assert result.exit_code == 1
    assert first["quality"] is None
    assert first["failure"]["reason"] == "truncated_image"
    assert first["route"] == {
        "action": "review", "queue": "failures", "priority": 70, "labels": [], "rule": "failure", "overload": None,
    }  # fmt: skip
    assert second["quality"] is not None
    assert f"{broken}: truncated_image:" in result.stderr
    assert "error: 1 of 2 images could not be scored" in result.stderr


def test_a_report_is_written_with_the_images_in_it(tmp_path: Path) -> None:
    result = sluice("score", *SAMPLES[:2], "--report", "report.html")
    page = (tmp_path / "report.html").read_text()

    assert result.exit_code == 0
    assert page.count("data:image/jpeg;base64,") == 2
    assert SAMPLES[0].name in page


def test_the_policy_that_is_given_decides(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        'schema: sluice.policy/1\nversion: "9"\nrules:\n  - name: all\n    route: {action: reject}\n'
        "failures: {queue: failures}\n"
    )
    result = sluice("score", SAMPLES[0], "--policy", policy, "--output", "-")

    assert result.exit_code == 0, result.stderr
    assert lines(result.stdout)[0]["route"]["action"] == "reject"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["."], "no images in ."),
        ([SAMPLES[0], "--policy", "none.yaml"], "none.yaml"),
        ([SAMPLES[0], "--model", "none"], "no model of this name"),
        ([SAMPLES[0], "--config", "none.yaml"], "none.yaml"),
        ([SAMPLES[0], "--output", "/dev/null/x.jsonl"], "cannot be written"),
        (["s3://"], "the bucket is missing"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_call_is_one_message_and_exit_code_2(arguments: list[Any], message: str) -> None:
    result = sluice("score", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["score", "submit"])
def test_options_that_no_event_can_have_are_one_message_and_exit_code_2(command: str) -> None:
    for options, message in ((("--tenant", "a b"), "tenant: should match"), (("--prompt", "x" * 20_001), "prompt: ")):
        result = sluice(command, SAMPLES[0], *options)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {message}")
        assert len(result.stderr.splitlines()) == 1


def test_a_name_with_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a[red]b[bold].jpg").write_bytes(SAMPLES[0].read_bytes())
    assert "a[red]b[bold].jpg" in sluice("score", "a[red]b[bold].jpg").stdout


def test_what_submit_leaves_out_is_told_and_no_images_at_all_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    nothing = sluice("submit", "folder", "--data", tmp_path / "data")
    assert nothing.exit_code == 2
    assert "no images in folder" in nothing.stderr
    (tmp_path / "folder" / "a.jpg").write_bytes(SAMPLES[0].read_bytes())
    some = sluice("submit", "folder", "--data", tmp_path / "data")
    assert some.exit_code == 0
    assert "1 event" in some.stdout
    assert "1 file that is not an image was left out: " in some.stdout


def test_events_that_were_submitted_are_followed() -> None:
    submitted = sluice("submit", *SAMPLES[:3], "--tenant", "acme", "--generator", "sd", "--priority", "9")
    followed = sluice("tail", "--topic", "images", "--from-beginning", "--no-follow", "--json")
    events = lines(followed.stdout)

    assert submitted.exit_code == followed.exit_code == 0
    assert "3 events in images.in of the embedded log in sluice-data" in submitted.stdout
    assert {event["image"]["path"] for event in events} == {str(path) for path in SAMPLES[:3]}
    assert {(event["tenant"], event["generator"], event["priority"]) for event in events} == {("acme", "sd", 9)}
    assert len({event["id"] for event in events}) == 3


def test_ready_events_are_submitted_and_bad_lines_are_named(tmp_path: Path) -> None:
    event = {"schema": "sluice.image-event/1", "id": "1", "occurred_at": "2026-01-02T03:04:05Z"}
    good = json.dumps(event | {"image": {"kind": "http", "url": "https://example.com/a.jpg"}})
    result = sluice("submit", "--events", "-", stdin=f"{good}\nnonsense\n")
    followed = sluice("tail", "--topic", "images", "--from-beginning", "--limit", "1")

    assert result.exit_code == 1
    assert "-, line 2:" in result.stderr
    assert "error: 1 events were not submitted, 1 were" in result.stderr
    assert "https://example.com/a.jpg" in followed.stdout


def test_an_event_larger_than_the_log_takes_is_reported_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_KAFKA__MAX_MESSAGE_BYTES", "65536")
    small = tmp_path / "small.jpg"
    small.write_bytes(b"x")
    large = tmp_path / "large.jpg"
    large.write_bytes(b"x" * 65536)
    result = sluice("submit", large, small, "--inline")

    assert result.exit_code == 1
    assert "kafka.max_message_bytes is 65,536" in result.stderr
    assert "1 events in images.in" in result.stdout


def test_files_outside_the_roots_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("files: {roots: [./other]}")
    result = sluice("submit", SAMPLES[0], "--config", "sluice.yaml", "--data", "data")

    assert result.exit_code == 0
    assert "1 of these files are outside files.roots" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", SAMPLES[0], "--events", "e.jsonl"],
        ["submit", "--events", "none.jsonl"],
        ["submit", SAMPLES[0], "--tenant", "a b"],
        ["submit", SAMPLES[0], "--priority", "101"],
        ["submit", SAMPLES[0], "--id-prefix", "\x07"],
        ["tail", "--no-follow"],
        ["tail", "--topic", "none"],
        ["tail", "--limit", "0"],
        ["up"],
        ["up", "--config", "none.yaml"],
        ["up", "--embedded", "--config", "none.yaml"],
        ["topics", "create", "--partitions", "0"],
        ["policy", "check", "none.yaml"],
        ["policy", "replay", "none.yaml", "--verdicts", "v.jsonl"],
        ["model", "show", "none"],
        ["demo", "--config", "none.yaml"],
        ["nonsense"],
    ],
)
def test_a_wrong_call_of_any_command_ends_with_exit_code_2(arguments: list[Any]) -> None:
    result = sluice(*arguments)

    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_records_that_do_not_belong_are_passed_over_and_told() -> None:
    from contextlib import closing

    from worker.cli.options import find_place
    from worker.cli.stream import open_stream

    with closing(open_stream(find_place(None, None))) as stream:
        stream.publish(b"k", b"\xff not JSON")
        stream.flush()
    for form in ([], ["--json"]):
        result = sluice("tail", "--topic", "images", "--from-beginning", "--no-follow", *form)

        assert (result.exit_code, result.stdout) == (0, "")
        assert "not a valid record of this topic" in result.stderr


def test_a_file_that_is_no_log_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "log.sqlite").write_text("something else entirely, and long enough to be looked at" * 20)
    result = sluice("tail", "--data", "data", "--from-beginning", "--no-follow")

    assert result.exit_code == 1
    assert "log.sqlite" in result.stderr


def test_the_embedded_topics_need_no_making() -> None:
    result = sluice("topics", "create")

    assert result.exit_code == 0
    assert "sluice-data" in result.stdout


@pytest.fixture
def verdicts(tmp_path: Path) -> Path:
    digest = "sha256:" + "ab" * 32
    path = tmp_path / "verdicts.jsonl"
    with path.open("w") as file:
        for index, quality in enumerate((1.2, 2.0, 2.4, 3.0, 4.5)):
            verdict = {
                "schema": "sluice.verdict/1",
                "verdict_id": str(index),
                "event_id": f"event-{index}",
                "tenant": "default",
                "occurred_at": None,
                "judged_at": "2026-01-02T03:04:05Z",
                "content_hash": digest,
                "status": "scored",
                "scores": {"quality": quality},
                "route": {"action": "pass", "rule": "default"},
                "model": digest,
                "policy": digest,
                "source": {"topic": "images.in", "partition": 0, "offset": index},
            }
            print(json.dumps(verdict), file=file)
    return path


def shipped_policy() -> Path:
    from worker.policy.loading import DEFAULT

    return DEFAULT


def test_replay_shows_what_would_have_gone_elsewhere(verdicts: Path) -> None:
    result = sluice("policy", "replay", shipped_policy(), "--verdicts", verdicts)

    assert result.exit_code == 0
    assert "5 of 5 verdicts replayed, 3 would go elsewhere" in result.stdout
    assert "review:quality" in result.stdout
    assert "event-0" in result.stdout


def test_lines_that_are_no_verdicts_are_named_and_left_out(verdicts: Path) -> None:
    with verdicts.open("a") as file:
        file.write("{}\n")
    result = sluice("policy", "replay", shipped_policy(), "--verdicts", verdicts)

    assert result.exit_code == 1
    assert "line 6:" in result.stderr
    assert "5 of 5 verdicts replayed" in result.stdout


def test_check_tells_version_and_digest() -> None:
    result = sluice("policy", "check", shipped_policy())

    assert result.exit_code == 0
    assert "sha256:" in result.stdout


def test_models_are_listed_and_shown() -> None:
    listed, shown = sluice("model", "list"), sluice("model", "show", "mst-lite")
    manifest = json.loads(sluice("model", "show", "mst-lite", "--json").stdout)

    assert "mst-lite" in listed.stdout
    assert manifest["name"] == "mst-lite"
    assert "tower" in shown.stdout


@pytest.mark.parametrize("option", ["--rate", "--weight-decay", "--margin"])
def test_what_no_training_survives_is_refused_before_it_begins(option: str, tmp_path: Path) -> None:
    refused = sluice("train", "--data", tmp_path, "--to", tmp_path / "run", option, "1e38")
    assert refused.exit_code == 2
    assert f"'{option}'" in refused.output
    assert "less than or equal to" in refused.output
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the disk that is always full")
def test_a_disk_that_takes_nothing_is_one_message_and_exit_code_1() -> None:
    result = sluice("score", SAMPLES[0], "--output", "/dev/full")

    assert result.exit_code == 1
    assert "error: /dev/full: cannot be written: " in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the disk that is always full")
def test_standard_output_that_takes_nothing_is_one_message_and_exit_code_1() -> None:
    command = [Path(sys.executable).with_name("sluice"), "score", SAMPLES[0]]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)

    assert done.returncode == 1
    assert done.stderr == "error: the output: cannot be written: No space left on device\n"


def test_servers_that_only_a_variable_names_are_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLUICE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = sluice("submit", SAMPLES[0])

    assert result.exit_code == 2
    assert "SLUICE_KAFKA__BOOTSTRAP_SERVERS is set, but without --config" in result.stderr
    assert not (tmp_path / "sluice-data").exists()
    assert sluice("submit", SAMPLES[0], "--data", "data").exit_code == 0


def test_a_log_that_is_new_is_told_to_who_expects_verdicts_in_it() -> None:
    assert "there was no log in sluice-data" in sluice("tail", "--from-beginning", "--no-follow").stderr
    assert sluice("tail", "--from-beginning", "--no-follow").stderr == ""


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in (["submit", SAMPLES[0]], ["up"], ["tail"], ["topics", "create"], ["demo"]):
        result = sluice(*command, "--data", "file")
        assert (result.exit_code, result.stderr) == (2, "error: file: not a folder\n")


@pytest.mark.parametrize("name", EXIT_CODES)
def test_every_error_that_has_an_exit_code_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    # Some of these modules load torch: they are read, not imported.
    source = Path(worker.__file__).parents[1] / f"{module.replace('.', '/')}.py"

    assert f"class {kind}(Exception):" in source.read_text()
