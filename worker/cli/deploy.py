"""`sluice deploy`: checks a Ray Serve config and makes keys for callers of the APIs."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.extras import extra

app = typer.Typer(
    name="deploy",
    help="Check Ray Serve configs, show applications' state, and make keys for the gateway and the desk's API.",
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
def status(
    address: Annotated[
        str, typer.Option("--address", envvar="RAY_DASHBOARD_ADDRESS", help="Ray's dashboard.")
    ] = "http://127.0.0.1:8265",
) -> None:
    """Show the state of the Serve applications, and why one has failed.

    `serve status` shows the reason at the end of a traceback; this command shows it alone.

    Exit code: 0 when all applications run, 1 when one does not, 2 when Ray does not answer.
    """
    with extra("serve"):
        from worker.apps.status import StatusError, read_status  # Ray takes seconds to import
    try:
        found = read_status(address)
    except StatusError as error:
        raise UsageError(str(error)) from error
    for part in found:
        console.out.print(f"{part.name}: {part.status}", markup=False, soft_wrap=True)
        if part.reason and not part.is_well:
            console.out.print(f"  {part.reason}", markup=False, soft_wrap=True)
    if not found:
        console.out.print("no application is deployed", markup=False)
    if not all(part.is_well for part in found):
        raise typer.Exit(1)


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
