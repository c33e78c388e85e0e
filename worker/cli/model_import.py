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

ToOption = Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the model; it must not hold one yet.")]
CoarseOption = Annotated[str, typer.Option("--coarse", metavar="NAME", help="open_clip's architecture, coarse stream.")]
FineOption = Annotated[str, typer.Option("--fine", metavar="NAME", help="open_clip's architecture, fine stream.")]
LicenseOption = Annotated[str, typer.Option("--license", help="Under which the weights may be used.")]

COARSE, FINE = "ViT-B-32-quickgelu", "ViT-B-16-quickgelu"


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="The paper's weights, as torch.save or safetensors wrote them.")],
    to: ToOption,
    coarse: CoarseOption = COARSE,
    fine: FineOption = FINE,
    text_weights: Annotated[
        str,
        typer.Option(
            "--text-weights", metavar="TAG|FILE", help="Of the text tower, where the checkpoint leaves it out."
        ),
    ] = "openai",
    prompt_head: Annotated[
        PromptScore, typer.Option("--prompt-head", help="What CHECKPOINT's prompt head tells, where it has one.")
    ] = "correspondence",
    quality: Annotated[
        Path | None,
        typer.Option("--quality", metavar="FILE", help="A checkpoint on the same towers whose prompt head tells it."),
    ] = None,
    correspondence: Annotated[
        Path | None,
        typer.Option("--correspondence", metavar="FILE", help="Likewise, for how well image and prompt match."),
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Of the model, in its manifest.")] = "1",
    license_: LicenseOption = "unknown",
    trained_on: Annotated[list[str] | None, typer.Option("--trained-on", help="A data set; may be repeated.")] = None,
) -> None:
    """Convert a checkpoint of the paper's PyTorch code to a model that serving loads.

    Towers, text tower, fusion and heads become graphs, weights and a manifest. The template head judges images without
    a prompt; prompt heads, of this checkpoint or of others on the same towers, judge those with one, on 1..5.

    Exit code: 0, or 2 when the checkpoint is not what it should be.
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
                f"the prompt head of {checkpoint} is to tell {score} too; --prompt-head says what it tells"
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
        str, typer.Option("--coarse-weights", metavar="TAG|FILE", help="Of the coarse CLIP, text tower included.")
    ] = "openai",
    fine_weights: Annotated[
        str, typer.Option("--fine-weights", metavar="TAG|FILE", help="Of the fine CLIP.")
    ] = "openai",
    license_: LicenseOption = "MIT",
    seed: Annotated[int, typer.Option("--seed", help="Of the fusion's random weights.")] = 1,
) -> None:
    """Write a model on pretrained CLIP towers whose fusion is untrained: where `sluice train` starts.

    Exit code: 0, or 2 when weights cannot be had; the message says how to bring them by hand.
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
    """Adds both commands to `sluice model`."""
    app.command("import")(import_checkpoint)
    app.command("new")(new_model)


def _refuse_occupied(folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists():
        raise UsageError(f"{folder}: holds a model already; name another folder")
