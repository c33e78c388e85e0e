"""`sluice desk` and `sluice policy tune`, as a user meets them."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.unit.review.review_bench import DIGEST, review_item, verdict
from worker.cli.main import app
from worker.intake.log import Output
from worker.review.embedded_topics import EmbeddedTopics
from worker.review.http.accounts import PEOPLE_FILE, Accounts
from worker.settings import Settings


def sluice(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An embedded log with three review items."""
    folder = tmp_path / "data"
    topics = EmbeddedTopics(Settings(), folder)
    items = [review_item(f"i{number}") for number in range(3)]
    topics.append([Output("images.review", item.model_dump_json().encode(), item.event_id.encode()) for item in items])
    topics.close()
    return folder


def test_a_rebuild_tells_what_the_index_holds(data: Path) -> None:
    result = sluice("desk", "rebuild", "--data", data)
    assert (result.exit_code, result.stdout) == (0, "the index holds 3 items\n")


def test_votes_are_imported_and_show_in_the_next_export(data: Path, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text("item_id,outcome,reviewer,labels\ni1,reject,ann,anatomy blurry\nnowhere,reject,ann,\n")
    result = sluice("desk", "import", votes, "--format", "csv", "--data", data)
    assert result.exit_code == 1
    assert result.stdout == "1 vote counted\n"
    assert result.stderr.rstrip().endswith("1 vote could not be counted")
    assert "line 3: nowhere: there is no item nowhere" in result.stderr
    output = tmp_path / "out.jsonl"
    assert sluice("desk", "export", "--output", output, "--status", "rejected", "--data", data).exit_code == 0
    (line,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert (line["item"]["item_id"], line["status"]) == ("i1", "rejected")
    assert line["decisions"][0]["labels"] == ["anatomy", "blurry"]
    again = sluice("desk", "import", output, "--data", data)
    assert (again.exit_code, again.stdout) == (0, "0 votes counted, 1 had been counted before\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "--format", "xml"), "unknown format 'xml'; expected jsonl, csv, label-studio"),
        (("import", "none.jsonl"), "none.jsonl"),
        (("import", "none.jsonl", "--format", "xml"), "unknown format 'xml'"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(data: Path, arguments: tuple[str, ...], told: str) -> None:
    result = sluice("desk", *arguments, "--data", data)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def past(tmp_path: Path) -> Path:
    """1,000 verdicts with qualities evenly from 1 to 5."""
    path = tmp_path / "verdicts.jsonl"
    lines = [verdict(f"e{number}", scores={"quality": 1 + number / 250}).model_dump_json() for number in range(1000)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tuning_fills_the_reviewers_time(past: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("event_id,score\n" + "".join(f"e{n},{1 + n / 250}\n" for n in range(1000)))
    plot = tmp_path / "trade.svg"
    options = ("--verdicts", past, "--reviewers", 2, "--seconds-per-item", 5, "--hours", 5, "--images-a-day", 61_200)
    result = sluice("policy", "tune", *options, "--human-scores", scores, "--bad-below", 2, "--plot", plot)
    assert result.exit_code == 0, result.stderr
    # 2 people x 5 h x 85 % / 5 s = 6,120 items: a tenth
    assert "reviewers can take 6,120 items a day of 61,200 images: review what scores below 1.400" in result.stdout
    assert "40%" in result.stdout
    assert "1.400" in ElementTree.fromstring(plot.read_text()).attrib["aria-label"]
    told = json.loads(sluice("policy", "tune", *options, "--json").stdout)
    assert told["chosen"]["threshold"] == pytest.approx(1.4)
    assert told["chosen"]["recall"] is None


def test_tuning_learns_from_what_reviewers_decided(past: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    lines = [
        json.dumps({"item": {"event_id": f"e{n}"}, "status": "rejected" if n < 100 else "approved"}) for n in range(200)
    ]
    items.write_text("\n".join(lines))
    result = sluice(
        "policy", "tune", "--verdicts", past, "--reviewers", 1, "--images-a-day", 10_000, "--decisions", items
    )
    assert result.exit_code == 0, result.stderr
    assert "people judged only images with low scores" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ((), 2, "span less than a minute"),
        (("--images-a-day", 100, "--human-scores", "none.csv"), 2, "none.csv"),
        (("--images-a-day", 100, "--plot", "no/such/folder.svg"), 2, "no/such/folder.svg"),
    ],
)
def test_tuning_tells_what_it_lacks(past: Path, options: tuple[Any, ...], code: int, told: str) -> None:
    result = sluice("policy", "tune", "--verdicts", past, "--reviewers", 1, *options)
    assert result.exit_code == code
    assert told in result.stderr


def test_lines_that_are_no_verdicts_are_counted(past: Path) -> None:
    with past.open("a") as file:
        file.write("{}\n")
    result = sluice("policy", "tune", "--verdicts", past, "--reviewers", 1, "--images-a-day", 100)
    assert result.exit_code == 1
    assert "1 of" in result.stderr
    assert DIGEST not in result.stderr


def test_an_admin_who_cannot_sign_in_gets_a_link_for_another_password(data: Path) -> None:
    with closing(Accounts(data / PEOPLE_FILE, time.time)) as accounts:
        assert accounts.accept(accounts.invite_first() or "", "ana", "correct horse battery")
        result = sluice("desk", "reset-password", "Ana", "--data", data)
        assert result.exit_code == 0
        link = result.stdout.strip()
        assert link.startswith("http://127.0.0.1:8420/#invitation=")
        assert accounts.accept(link.partition("=")[2], "ana", "another battery staple")
        assert accounts.check("ana", "another battery staple")
    unknown = sluice("desk", "reset-password", "eve", "--data", data)
    assert (unknown.exit_code, "there is no user 'eve'" in unknown.stderr) == (2, True)


def test_a_folder_without_users_is_told(tmp_path: Path) -> None:
    result = sluice("desk", "reset-password", "ana", "--data", tmp_path)
    assert (result.exit_code, "no local users here" in result.stderr) == (2, True)
