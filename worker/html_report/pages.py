"""Renders reports: one HTML page each, without scripts, fonts or pictures from elsewhere."""

from base64 import b64encode
from pathlib import Path

from worker.atomic_files import write_atomically


def render(package: str, template: str, **values: object) -> str:
    """A page from the package's folder `templates`. Everything that comes from outside is escaped.

    Templates may extend `report_page.html.j2`, and have these filters: `data_uri` of a JPEG, `signed` of a number,
    `short` of a digest.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # installed by the extra `report`

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("worker.html_report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = lambda jpeg: "data:image/jpeg;base64," + b64encode(jpeg).decode("ascii")
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    environment.filters["short"] = lambda digest: digest.removeprefix("sha256:")[:12]
    return environment.get_template(template).render(**values)


def write_page(path: Path, page: str) -> None:
    """Writes the page, whole or not at all, and the folders above it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode())
