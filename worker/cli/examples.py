"""What the commands that train and measure share: their data, the packages they need beside serving's, a bar."""

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
    bool, typer.Option("--single-prompts", help="Take CSV files in which a prompt has one image only.")
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Where features are kept between runs.")
]


def read_data(paths: list[Path], scale: str, single_prompts: bool) -> list["Example"]:
    """The examples of all files and folders, kin in one group, which is said where it is news. Raises UsageError and
    DataError."""
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
        f"{joined.before:,} prompts or lone images count as {joined.after:,}: those that share an image or "
        f"words{copies} stay on one side of every split"
    )


def say(text: str) -> None:
    """A line of prose, wrapped by the terminal alone."""
    console.out.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar while a person watches; nothing in a pipe. Gives the function that moves it on by one."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def write(file: Path, text: str) -> None:
    """Writes a file and the folders above it. Raises CommandFailed."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file}: cannot be written: {error.strerror}") from error
