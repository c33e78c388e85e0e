"""`sluice explain`: why an image got its score, as a picture."""

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.examples import progress
from worker.cli.options import ModelOption
from worker.images.decode import decode
from worker.images.errors import ImageError
from worker.images.views import make_views
from worker.scoring.explain import explain as look
from worker.scoring.model import load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.settings import load_settings

app = typer.Typer(add_completion=False)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image's file.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The PNG file to write. Default: beside the image.")
    ] = None,
    cells: Annotated[
        int,
        typer.Option(
            "--cells", help="Cells along each side of the heat map. The time grows with their square.", min=2, max=32
        ),
    ] = 10,
    model: ModelOption = None,
) -> None:
    """Draw why an image got its score: similarity to each grade, weight of each stream, and a heat map.

    Exit code: 0, 1 when the image cannot be judged, 2 when the picture cannot be written.
    """
    from worker.model.explain_picture import Words, draw

    file = output or image.with_name(f"{image.stem}.explained.png")
    if file.suffix.lower() != ".png":
        raise UsageError(f"{file}: the picture is a PNG; use a name that ends in .png")
    settings = load_settings(None, os.environ)
    loaded = load_model(model or settings.model, settings.s3)
    try:
        pixels = decode(image.read_bytes(), max_pixels=settings.images.max_pixels)
    except OSError as error:
        raise CommandFailed(f"{image}: cannot be read: {error.strerror}") from error
    except ImageError as error:
        raise CommandFailed(f"{image}: {error}") from error
    with closing(OpenVinoEngine(loaded)) as engine, progress("looking", cells * cells) as advance:
        found = look(loaded, engine, pixels, make_views, cells=cells, advance=advance)
    manifest = loaded.manifest
    words = Words(str(image), f"{manifest.name} {manifest.version}, {manifest.digest[:19]}", manifest.anchors)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(pixels, found, words).save(file)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from error
    share = found.scores.coarse_share
    balance = "" if share is None else f", coarse {share:.0%} and fine {1 - share:.0%}"
    for line in (f"{image}: {found.scores.quality:.2f}{balance}", f"wrote {file}"):
        console.out.print(console.printable(line), markup=False, soft_wrap=True)
