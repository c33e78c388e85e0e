"""`sluice model`: what models there are, what one is, and where more come from."""

from typing import Annotated

import typer
from rich.table import Column, Table

from worker.cli import console, model_import
from worker.scoring.manifest import MANIFEST_NAME, Measurement, load_manifest
from worker.scoring.model import SHIPPED_MODELS, load_model

app = typer.Typer(name="model", help="Look at models, and make some.", no_args_is_help=True)
model_import.register(app)


@app.command("list")
def list_models() -> None:
    """List the models that ship."""
    table = Table("name", "version", "digest", "SRCC", "licence")
    for path in sorted(SHIPPED_MODELS.glob(f"*/{MANIFEST_NAME}")):
        manifest = load_manifest(path)
        measured = f"{manifest.quality[0].srcc:.3f}" if manifest.quality else ""
        table.add_row(path.parent.name, manifest.version, manifest.digest[:19], measured, manifest.license)
    console.out.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A shipped model's name, or a manifest's path.")],
    as_json: Annotated[bool, typer.Option("--json", help="The manifest itself, for programs.")] = False,
) -> None:
    """Show a model, after checking every file of it against its digest."""
    manifest = load_model(name).manifest
    if as_json:
        print(manifest.model_dump_json(by_alias=True, indent=2))
        return
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False, box=None)
    table.add_row("name", f"{manifest.name} {manifest.version}")
    table.add_row("digest", manifest.digest)
    for view_name, view in manifest.views.items():
        crops = "" if view.crops == 1 else f", {view.crops} crops"
        table.add_row(f"view {view_name}", f"{view.size} px, resize {view.resize}, crop {view.crop}{crops}")
    for tower in manifest.towers:
        table.add_row(f"tower {tower.name}", f"{tower.features} features of view {tower.view}")
    if manifest.prompt is not None:
        judged = " and ".join(manifest.prompt.scores) or "not trained yet"
        table.add_row("prompt head", f"{judged}, of {manifest.prompt.context} tokens")
    table.add_row("licence", manifest.license)
    table.add_row("trained on", "\n".join(manifest.training_data))
    for measured in manifest.quality:
        table.add_row("measured", _describe(measured))
    console.out.print(table)


def _describe(measured: Measurement) -> str:
    within = measured.srcc_within_generator
    inside = "" if within is None else f", within generator {within:.3f}"
    return f"SRCC {measured.srcc:.3f}{inside} on {measured.images:,} images of {measured.dataset}: {measured.protocol}"
