"""`sluice model import` and `sluice model new`: models on CLIP's towers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.extras import extra
from worker.scoring.manifest import MANIFEST_NAME, PromptScore

if TYPE_CHECKING:
    from worker.model.clip.network import MstClip

ToOption = Annotated[
    Path, typer.Option("--to", metavar="DIR", help="Folder for the model. It must not hold a model yet.")
]
CoarseOption = Annotated[
    str, typer.Option("--coarse", metavar="NAME", help="open_clip architecture of the coarse stream.")
]
FineOption = Annotated[str, typer.Option("--fine", metavar="NAME", help="open_clip architecture of the fine stream.")]
LicenseOption = Annotated[str, typer.Option("--license", help="Licence of the weights.")]

COARSE, FINE = "ViT-B-32-quickgelu", "ViT-B-16-quickgelu"


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(help="The weights of the paper's code, in torch.save or safetensors format.")
    ],
    to: ToOption,
    coarse: CoarseOption = COARSE,
    fine: FineOption = FINE,
    text_weights: Annotated[
        str,
        typer.Option(
            "--text-weights", metavar="TAG|FILE", help="Weights of the text tower, if the checkpoint has none."
        ),
    ] = "openai",
    prompt_head: Annotated[
        PromptScore, typer.Option("--prompt-head", help="The score that CHECKPOINT's prompt head predicts.")
    ] = "correspondence",
    quality: Annotated[
        Path | None,
        typer.Option(
            "--quality", metavar="FILE", help="A checkpoint on the same towers whose prompt head predicts quality."
        ),
    ] = None,
    correspondence: Annotated[
        Path | None,
        typer.Option("--correspondence", metavar="FILE", help="The same, for how well image and prompt match."),
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Name of the model, in its manifest.")] = "1",
    license_: LicenseOption = "unknown",
    trained_on: Annotated[
        list[str] | None, typer.Option("--trained-on", help="A data set that the model was trained on. Repeatable.")
    ] = None,
) -> None:
    """Convert a checkpoint of the paper's PyTorch code to a model that Sluice can serve.

    Towers, text tower, fusion and heads become graphs, weights and a manifest. The template head scores images without
    a prompt. Prompt heads, from this checkpoint or from others on the same towers, score images with a prompt. All
    scores are 1 to 5.

    Exit code: 0, or 2 when the checkpoint is not valid.
    """
    _refuse_occupied(to)
    with extra("train"):
        from worker.model.clip.checkpoint import check_same_towers, load_checkpoint
        from worker.model.clip.export import export_model
        from worker.model.clip.towers import Encoder
    network = load_checkpoint(checkpoint, Encoder(coarse), Encoder(fine), text_weights=text_weights)
    prompts: dict[PromptScore, MstClip] = {} if network.prompt_head is None else {prompt_head: network}
    others: dict[PromptScore, Path | None] = {"quality": quality, "correspondence": correspondence}
    for score, file in others.items():
        if file is None:
            continue
        if score in prompts:
            raise UsageError(
                f"the prompt head of {checkpoint} cannot predict {score} too; --prompt-head says what it predicts"
            )
        prompts[score] = load_checkpoint(file, Encoder(coarse), Encoder(fine), text_weights=text_weights)
        check_same_towers(file, prompts[score], network)
    manifest = export_model(
        network, to, version=version, license=license_, training_data=tuple(trained_on or ()), prompts=prompts
    )
    if prompts:
        console.out.print(f"with a prompt: {' and '.join(prompts)} by the prompt head", markup=False)
    console.out.print(
        f"wrote {to}: {manifest.name} {manifest.version}, {manifest.digest}", markup=False, soft_wrap=True
    )


def new_model(
    to: ToOption,
    coarse: CoarseOption = COARSE,
    fine: FineOption = FINE,
    coarse_weights: Annotated[
        str,
        typer.Option(
            "--coarse-weights", metavar="TAG|FILE", help="Weights of the coarse CLIP model, with its text tower."
        ),
    ] = "openai",
    fine_weights: Annotated[
        str, typer.Option("--fine-weights", metavar="TAG|FILE", help="Weights of the fine CLIP model.")
    ] = "openai",
    license_: LicenseOption = "MIT",
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the fusion's weights.")] = 1,
) -> None:
    """Write a model on pretrained CLIP towers with an untrained fusion, for `sluice train`.

    Exit code: 0, or 2 when weights cannot be downloaded; the message says how to get them by hand.
    """
    _refuse_occupied(to)
    with extra("train"):
        from worker.model.clip.export import export_model
        from worker.model.clip.towers import Encoder, build_network
    network = build_network(Encoder(coarse, coarse_weights), Encoder(fine, fine_weights), seed=seed)
    manifest = export_model(network, to, version="untrained", license=license_, training_data=())
    console.out.print(
        f"wrote {to}: {manifest.name} {manifest.version}, {manifest.digest}", markup=False, soft_wrap=True
    )


def register(app: typer.Typer) -> None:
    """Adds the commands to `sluice model`."""
    app.command("import")(import_checkpoint)
    app.command("new")(new_model)


def _refuse_occupied(folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists():
        raise UsageError(f"{folder}: already holds a model; use another folder")
