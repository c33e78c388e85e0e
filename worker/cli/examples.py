"""Shared by the commands that train and evaluate: reading data, checking packages, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.extras import extra

if TYPE_CHECKING:
    from worker.model.data import Example
    from worker.model.kin import Joined

DataOption = Annotated[
    list[Path], typer.Option("--data", metavar="FILE|DIR", help="A CSV file or a data set's folder; may be repeated.")
]
ScaleOption = Annotated[
    str, typer.Option("--scale", metavar="LOW:HIGH", help="The scale of mos in CSV files, mapped to 1..5.")
]
SinglePromptsOption = Annotated[
    bool, typer.Option("--single-prompts", help="Accept CSV files in which each prompt has only one image.")
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Where features are kept between runs.")
]


def read_data(paths: list[Path], scale: str, single_prompts: bool) -> list["Example"]:
    """The examples of all files and folders. Examples that share an image or words are put into one group, and a
    message says so when that changes the number of groups. Raises UsageError and DataError.
    """
    with extra("train"):
        from worker.model.evaluation.datasets import Scale, read_examples
        from worker.model.kin import join_kin
    lowest, _, highest = scale.partition(":")
    try:
        people = Scale(float(lowest), float(highest))
    except ValueError:
        raise UsageError(f"--scale {scale}: expected LOW:HIGH, such as 1:5 or 0:100") from None
    if not people.lowest < people.highest:
        raise UsageError(f"--scale {scale}: LOW must be below HIGH")
    joined = join_kin(
        [example for path in paths for example in read_examples(path, people, single_prompts=single_prompts)]
    )
    if joined.after < joined.before:
        _tell_joined(joined)
    return joined.examples


def _tell_joined(joined: "Joined") -> None:
    several = f" ({joined.copies:,} images are copies of others)" if joined.copies else ""
    copies = " (1 image is a copy of another)" if joined.copies == 1 else several
    say(
        f"{joined.before:,} prompts or images without a prompt form {joined.after:,} groups: those that share an "
        f"image or words{copies} stay on one side of every split"
    )


def say(text: str) -> None:
    """Prints a line of text; only the terminal wraps it."""
    console.out.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; nothing in a pipe. Yields the function that advances it by one."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def write(file: Path, text: str) -> None:
    """Writes a file, and makes its parent folders. Raises CommandFailed."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file}: cannot be written: {error.strerror}") from error
