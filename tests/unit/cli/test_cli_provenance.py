"""`sluice score` and `sluice policy check` tell what files say of their origin."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner, Result

from worker.cli.main import app
from worker.samples.sample import load_samples

SAMPLES = [sample.path for sample in load_samples()]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sluice(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_what_the_files_say_of_their_origin_is_written_and_a_policy_may_read_it(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, Seed: 42, Model: <b>dream</b>")
    with Image.open(SAMPLES[0]) as sample:
        sample.save(tmp_path / "made.png", pnginfo=info)
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        'schema: sluice.policy/1\nversion: "9"\nrules:\n'
        "  - name: made\n    when: has(provenance.generator) && provenance.generator == 'a1111'\n"
        "    route: {action: review, queue: generated}\n"
        "  - {name: rest, route: {action: pass, labels: [no-provenance]}}\nfailures: {queue: failures}\n"
    )
    result = sluice("score", "made.png", SAMPLES[1], "--policy", policy, "--output", "-", "--report", "report.html")
    made, other = lines(result.stdout)
    page = (tmp_path / "report.html").read_text()

    assert (made["route"]["queue"], other["route"]["labels"]) == ("generated", ["no-provenance"])
    assert made["provenance"] == {
        "found": True, "c2pa": "absent", "generator": "a1111", "model": "<b>dream</b>", "sampler": "Euler a",
        "steps": 20, "seed": "42",
    }  # fmt: skip
    assert other["provenance"] == {"found": False, "c2pa": "absent"}
    assert "the file says: a1111, &lt;b&gt;dream&lt;/b&gt;" in page
    assert "<b>dream" not in page


def test_a_policy_that_reads_more_than_the_settings_read_is_refused(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        'schema: sluice.policy/1\nversion: "9"\nrules:\n'
        "  - {name: forged, when: provenance.c2pa == 'invalid', route: {action: reject}}\n"
        "  - {name: rest, route: {action: pass}}\nfailures: {queue: failures}\n"
    )
    scored, checked = sluice("score", SAMPLES[0], "--policy", policy), sluice("policy", "check", policy)

    assert scored.exit_code == 2
    assert "it reads provenance.c2pa, and images.provenance is text; set it to c2pa" in scored.stderr
    assert checked.exit_code == 0
    assert "it reads provenance.c2pa: workers need images.provenance: c2pa" in checked.stdout
