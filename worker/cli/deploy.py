"""`sluice deploy`: checks a Ray Serve config and makes keys for callers of the APIs."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import console
from worker.cli.extras import extra

app = typer.Typer(
    name="deploy",
    help="Check Ray Serve configs, and make keys for the gateway and the desk's API.",
    no_args_is_help=True,
)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The config for `serve deploy`.")],
    online: Annotated[
        bool, typer.Option("--online", help="Also check the model, policy, Kafka, Redis and S3 that the config names.")
    ] = False,
) -> None:
    """Check a Ray Serve config and report every problem with its line.

    Finds what Ray ignores (mistyped keys) and what Ray would only find on the cluster: import paths that fail, unknown
    deployments, wrong arguments and settings, inconsistent timeouts, and example names that were not replaced.

    Run it where the applications can be imported, in the folder from which relative paths start. Without --online no
    server is contacted, and the output lists what was not checked.

    Exit code: 0 when nothing is wrong, 2 when something is.
    """
    with extra("serve"):
        from worker.apps.checking.check import check as check_config  # Ray takes seconds to import
    checked = check_config(file, online=online)
    named = ", ".join(checked.applications)
    verdict = f"{named} can be deployed" if named else "names no application; Serve would stop all its applications"
    console.out.print(f"{file}: {verdict}", markup=False, soft_wrap=True)
    for note in checked.notes:
        console.out.print(f"note: {note}", markup=False, soft_wrap=True)


@app.command()
def key() -> None:
    """Make a key for a caller of the gateway or of the desk's API. It is shown once; settings hold only its digest."""
    from worker.review.http.bearer_keys import digest_of

    made = secrets.token_urlsafe(32)
    console.out.print(f"key:    {made}", markup=False, soft_wrap=True)
    console.out.print(f"digest: {digest_of(made)}", markup=False, soft_wrap=True)
    console.err.print("give the caller the key, and put its digest into the settings:", markup=False)
    console.err.print("  gateway: {keys: {NAME: DIGEST}}", markup=False, soft_wrap=True)
    console.err.print("  web: {api_keys: {NAME: {digest: DIGEST, scopes: [items:read]}}}", markup=False, soft_wrap=True)
