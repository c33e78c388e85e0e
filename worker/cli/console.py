"""The consoles for stdout and stderr, and functions that escape untrusted text for a terminal."""

import re
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from schemas import Failure, Route

out = Console()
err = Console(stderr=True)

STYLES = {"pass": "green", "review": "yellow", "reject": "red"}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with control and bidirectional characters escaped, so that a file name cannot control the terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def route_text(route: Route) -> Text:
    """A route as colored text, such as `review low-quality`."""
    words = route.action if route.queue is None else f"{route.action} {route.queue}"
    return Text(printable(words), style=STYLES[route.action])


def failure_text(name: str, failure: Failure) -> Text:
    """One line: the image, the reason, the message."""
    return Text.assemble(
        (printable(name), "bold"), ": ", (failure.reason.value, "red"), ": ", printable(failure.message)
    )


def tell_left_out(
    screen: Console, skipped: int, skipped_names: Sequence[str], links: int, unreadable: Sequence[str]
) -> None:
    """Prints what was skipped: the number of files that are not images and some of their names, links to folders, and
    folders that could not be read.
    """
    if skipped:
        files = "1 file that is not an image was" if skipped == 1 else f"{skipped:,} files that are not images were"
        more = "" if skipped == len(skipped_names) else ", …"
        names = ", ".join(map(printable, skipped_names))
        screen.print(f"{files} left out: {names}{more}", markup=False, soft_wrap=True)
    if links:
        folders = "1 link to a folder was" if links == 1 else f"{links:,} links to folders were"
        screen.print(f"{folders} not followed; pass the folders themselves to include their images")
    for problem in unreadable:
        err.print(f"cannot read {printable(problem)}", markup=False, soft_wrap=True)
