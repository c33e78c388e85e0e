"""Rules over what files say of their origin."""

from pathlib import Path

import pytest

from schemas import ImageEvent, Provenance, Scores, Verdict
from worker.policy import Policy, PolicyError, load_policy
from worker.policy.place import FilePlace
from worker.policy.replay import replay
from worker.policy.requirements import ProvenanceSetting, needed_provenance, require_provenance
from worker.policy.watch import PolicyWatch

EVENT = ImageEvent.model_validate(
    {"id": "e", "occurred_at": "2026-01-01T00:00:00Z", "image": {"kind": "file", "path": "a.png"}}
)
SCORES = Scores(quality=3)
DIGEST = f"sha256:{'0' * 64}"
FULL = Provenance(
    found=True,
    c2pa="trusted",
    c2pa_generator="Imaginator 3",
    c2pa_signer="Example Inc.",
    c2pa_source_type="trainedAlgorithmicMedia",
    source_type="trainedAlgorithmicMedia",
    software="Imaginator",
    generator="comfyui",
    model="sd_xl_base_1.0",
    sampler="euler",
    steps=20,
    seed="18446744073709551615",
)


def text(condition: str) -> str:
    return (
        'schema: sluice.policy/1\nversion: "1"\nrules:\n'
        f"- {{name: it, when: '{condition}', route: {{action: reject}}}}\n- {{name: rest, route: {{action: pass}}}}\n"
    )


def policy(tmp_path: Path, condition: str) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(text(condition))
    return load_policy(path)


@pytest.mark.parametrize(
    ("condition", "on_full", "on_none"),
    [
        ("provenance.found", "reject", "pass"),
        ("!provenance.found", "pass", "reject"),
        ('provenance.c2pa == "trusted"', "reject", "pass"),
        ('provenance.c2pa in ["absent", "invalid"]', "pass", "reject"),
        ('has(provenance.generator) && provenance.generator == "comfyui"', "reject", "pass"),
        ('has(provenance.model) && provenance.model.startsWith("sd_xl")', "reject", "pass"),
        ("has(provenance.steps) && provenance.steps < 30", "reject", "pass"),
        ('has(provenance.seed) && provenance.seed == "18446744073709551615"', "reject", "pass"),
        ("!has(provenance.sampler)", "pass", "reject"),
        ('has(provenance.c2pa_signer) && provenance.c2pa_signer.matches("^Example")', "reject", "pass"),
        (
            'has(provenance.source_type) && provenance.source_type == "trainedAlgorithmicMedia" && scores.quality < 4',
            "reject",
            "pass",
        ),
        ("has(provenance.software) && has(event.generator)", "pass", "pass"),
    ],
)
def test_a_rule_reads_what_the_file_says(tmp_path: Path, condition: str, on_full: str, on_none: str) -> None:
    loaded = policy(tmp_path, condition)
    assert loaded.route(EVENT, SCORES, FULL).action == on_full
    assert loaded.route(EVENT, SCORES, Provenance()).action == on_none


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ('provenance.generator == "comfyui"', "provenance.generator may be absent: write has(provenance.generator)"),
        ("provenance.c2p", "provenance.c2p: no such field; did you mean 'c2pa'?"),
        ("provenance", "provenance must be used by field, such as provenance.found"),
        ('has(provenance.steps) && provenance.steps > "3"', "a value has the wrong type"),
        ("has(provenance.seed) && provenance.seed > 3", "a value has the wrong type"),
        ("provenance.c2pa", "must be true or false, but is text"),
        ("provenence.found", "no such variable; did you mean 'provenance'?"),
    ],
)
def test_a_rule_that_misreads_it_is_refused(tmp_path: Path, condition: str, says: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy(tmp_path, condition)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("condition", "needs"),
    [
        ("scores.quality < 2", "off"),
        ("provenance.found", "text"),
        ("has(provenance.model)", "text"),
        ('provenance.c2pa == "trusted"', "c2pa"),
        ("has(provenance.c2pa_signer)", "c2pa"),
    ],
)
def test_a_policy_that_reads_more_than_workers_read_is_refused(
    tmp_path: Path, condition: str, needs: ProvenanceSetting
) -> None:
    loaded = policy(tmp_path, condition)
    settings: list[ProvenanceSetting] = ["off", "text", "c2pa"]
    assert needed_provenance(loaded) == needs
    for setting in settings:
        if settings.index(setting) >= settings.index(needs):
            require_provenance(loaded, setting, "policy.yaml")
        else:
            with pytest.raises(PolicyError, match=rf"images.provenance is {setting}; set it to {needs}"):
                require_provenance(loaded, setting, "policy.yaml")


def test_a_worker_keeps_its_policy_when_the_new_one_reads_more_than_it_reads(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text("provenance.found"))
    watch = PolicyWatch(FilePlace(file), {}, provenance="text")
    before = watch.active
    file.write_text(text('provenance.c2pa == "invalid"'))
    watch.look()
    assert watch.active is before
    (trouble,) = watch.troubles()
    assert trouble.startswith(
        f"policy: {file}: it reads provenance.c2pa, and images.provenance is text; set it to c2pa"
    )
    with pytest.raises(PolicyError, match="set it to c2pa"):
        PolicyWatch(FilePlace(file), {}, provenance="text")


def verdict(provenance: Provenance | None) -> Verdict:
    return Verdict.model_validate(
        {
            "verdict_id": "v", "event_id": "e", "tenant": "default", "occurred_at": "2026-01-01T00:00:00Z",
            "judged_at": "2026-01-01T00:00:01Z", "content_hash": DIGEST, "status": "scored", "scores": {"quality": 3},
            "route": {"action": "pass", "rule": "rest"}, "model": DIGEST, "policy": DIGEST, "provenance": provenance,
            "source": {"topic": "images.in", "partition": 0, "offset": 0},
        }
    )  # fmt: skip


def test_past_verdicts_are_replayed_with_their_provenance(tmp_path: Path) -> None:
    loaded = policy(tmp_path, 'has(provenance.generator) && provenance.generator == "comfyui"')
    result = replay(loaded, [verdict(FULL), verdict(Provenance()), verdict(None)])
    assert result.after == {"reject": 1, "pass": 1}
    assert result.undecided == {"it": 1}
    assert result.undecided_reads == {"it": ("provenance.generator",)}


def test_a_manifest_that_was_not_verified_decides_nothing_in_a_replay(tmp_path: Path) -> None:
    loaded = policy(tmp_path, 'provenance.c2pa == "trusted"')
    result = replay(loaded, [verdict(FULL), verdict(Provenance()), verdict(Provenance(found=True, c2pa="unverified"))])
    assert result.after == {"reject": 1, "pass": 1}
    assert result.undecided == {"it": 1}


@pytest.mark.parametrize(
    ("said", "quality", "rule"),
    [
        (Provenance(found=True, c2pa="invalid", generator="comfyui"), 1.5, "forged"),
        (Provenance(found=True, generator="comfyui"), 1.5, "poor"),
        (Provenance(found=True, generator="comfyui"), 4.0, "comfyui"),
        (Provenance(found=True, source_type="trainedAlgorithmicMedia"), 4.0, "declared"),
        (Provenance(found=True, c2pa="trusted", c2pa_source_type="trainedAlgorithmicMedia"), 4.0, "declared"),
        (Provenance(found=True, c2pa="valid", c2pa_source_type="trainedAlgorithmicMedia"), 4.0, "default"),
        (Provenance(software="GIMP"), 4.0, "unmarked"),
    ],
)
def test_the_worked_example_of_the_documentation_does_what_it_says(
    tmp_path: Path, said: Provenance, quality: float, rule: str
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "provenance.md").read_text()
    file = tmp_path / "policy.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    assert load_policy(file).route(EVENT, Scores(quality=quality), said).rule == rule
