"""`sluice model`: lists, shows, imports and promotes models."""

import os
from typing import Annotated, Final

import typer
from rich.table import Column, Table

from worker.cli import console, model_import, model_promote
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.options import ConfigOption
from worker.scoring.manifest import MANIFEST_NAME, Measurement, ModelManifest, load_manifest
from worker.scoring.model import SHIPPED_MODELS, load_model
from worker.scoring.open_store import open_store
from worker.scoring.promotion import Promoter
from worker.scoring.repository import Repository
from worker.scoring.stores import FileStore, RepositoryError
from worker.settings import load_settings

COLUMNS: Final = ("name", "version", "digest", "SRCC", "licence")

app = typer.Typer(name="model", help="List, show, import and promote models.", no_args_is_help=True)
model_import.register(app)
model_promote.register(app)


@app.command("list")
def list_models(
    repository: Annotated[
        str | None,
        typer.Option("--repository", metavar="DIR|S3", help="A model repository: a folder or s3://bucket/prefix."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the shipped models or, with --repository, the models in it with their engines."""
    if repository is not None:
        _list_repository(open_store(repository, load_settings(config, os.environ).s3))
        return
    table = Table(*COLUMNS)
    for path in sorted(SHIPPED_MODELS.glob(f"*/{MANIFEST_NAME}")):
        table.add_row(*_cells(path.parent.name, load_manifest(path)))
    console.out.print(table)


def _list_repository(store: FileStore) -> None:
    models, promoter = Repository(store), Promoter(store)
    table = Table(*COLUMNS, "serves", Column("engines", no_wrap=True))
    problems: list[str] = []
    serving: dict[str, str] = {}
    for version in models.versions():
        try:
            if version.name not in serving:
                record = promoter.record(version.name)
                serving[version.name] = "" if record is None else record.serving.version
            manifest = models.manifest(version)
        except RepositoryError as error:
            problems.append(str(error))
            continue
        if manifest is not None:
            engines, damaged = models.engines(version)
            serves = "yes" if version.version == serving[version.name] else ""
            table.add_row(*_cells(version.name, manifest), serves, "\n".join(each.target.name for each in engines))
            problems += map(str, damaged)
    if not table.row_count and not problems:
        raise UsageError("no models here; sluice build MODEL --repository … adds one")
    console.out.print(table)
    if problems:
        raise CommandFailed("\n".join(problems))


def _cells(name: str, manifest: ModelManifest) -> tuple[str, ...]:
    measured = f"{manifest.quality[0].srcc:.3f}" if manifest.quality else ""
    return name, manifest.version, manifest.digest[:19], measured, console.printable(manifest.license)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PLACE",
            help="The name of a shipped model, the path of a manifest, or a model's place in a repository.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show a model. Every file is checked against its digest first."""
    manifest = load_model(name, load_settings(config, os.environ).s3).manifest
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
