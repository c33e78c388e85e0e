"""The page's files: ES modules, styles and fonts, served as they are."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FILES: Final = Path(__file__).parents[1] / "page"


class _Page(StaticFiles):
    """Makes browsers revalidate each file; an unchanged file costs only a few bytes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        fixed = path.startswith("vendor/")
        response.headers["cache-control"] = "public, max-age=86400" if fixed else "no-cache"
        return response


def install(app: FastAPI) -> None:
    app.mount("/", _Page(directory=FILES, html=True), name="page")
