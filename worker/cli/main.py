"""The `sluice` command, assembled."""

import typer

from worker.cli.demo import demo
from worker.cli.errors import Commands
from worker.cli.model import models
from worker.cli.policy import policies
from worker.cli.score import score
from worker.cli.silence import be_silent
from worker.cli.submit import submit
from worker.cli.tail import tail
from worker.cli.topics import topics
from worker.cli.up import up

app = typer.Typer(
    name="sluice",
    cls=Commands,
    help="A quality gate for AI-generated images: score them, route them, let people decide.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _begin() -> None:
    be_silent()


for command in (demo, score, up, submit, tail):
    app.command()(command)
for group in (topics, policies, models):
    app.add_typer(group)
