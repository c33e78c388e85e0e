"""Serves the review desk at the end of the demo, with the items that the demo sent to review."""

import sys
from pathlib import Path

from worker.cli import console
from worker.cli.options import Place
from worker.cli.up import serving_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import FileSettings, Settings


def show_desk(settings: Settings, data: Path) -> None:
    """Serves the desk until a key is pressed. Does nothing without a terminal. Takes a free port unless the settings
    set one.

    Raises DeskServerError, AccountsError and LogError.
    """
    if not (sys.stdin.isatty() and console.err.is_terminal):
        return
    web = settings.web if "port" in settings.web.model_fields_set else settings.web.model_copy(update={"port": 0})
    roots = FileSettings(roots=(SAMPLE_IMAGES, (data / "images").resolve()))
    with serving_desk(Place(settings.model_copy(update={"web": web, "files": roots}), data)):
        console.err.print("press any key to close the desk")
        _wait_for_key()


def _wait_for_key() -> None:
    try:
        import termios
        import tty
    except ImportError:  # Windows has neither module
        sys.stdin.readline()
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdin.read(1)
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
