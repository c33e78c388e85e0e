"""Plots of results: SVG, written by hand as the product's own plots are, because it needs no library."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 70, 56
BAR, GAP, VALUE = 20, 10, 70
LETTER = 7.6
"""Pixels, at most about; whose font draws it is not known here."""
TONES = 6

STYLE = (
    "<style>"
    "svg{background:#fff;--ink:#333;--soft:#6a6a6a;--line:#ddd;"
    "--t0:#2a6f97;--t1:#c8553d;--t2:#4f7a4a;--t3:#8d6a9f;--t4:#946f00;--t5:#5c5c5c}"
    "@media(prefers-color-scheme:dark){svg{background:#16181b;--ink:#e4e4e4;--soft:#a0a0a0;--line:#3a3d41;"
    "--t0:#6fb3dc;--t1:#ee8a74;--t2:#8fc089;--t3:#c3a3d6;--t4:#d9b44a;--t5:#b5b5b5}}"
    "text{font:13px system-ui,sans-serif;fill:var(--ink)}.t{font-size:15px;font-weight:600}"
    ".a{fill:var(--soft);font-size:12px}line{stroke:var(--line)}"
    "</style>"
)


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """One bar a name, the value at its end."""
    top = 52
    names = 24 + LETTER * max(map(len, values), default=0)
    most = max(values.values(), default=0) or 1
    room = WIDTH - names - RIGHT - VALUE
    parts = []
    for place, (name, value) in enumerate(values.items()):
        y = top + place * (BAR + GAP)
        length = max(1.0, value / most * room)
        parts.append(
            f'<text x="{names - 8:.1f}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{names:.1f}" y="{y}" width="{length:.1f}" height="{BAR}" style="fill:var(--t0)"/>'
            f'<text x="{names + length + 8:.1f}" y="{y + 15}">{number(value)}</text>'
        )
    return _page(top + len(values) * (BAR + GAP) + 12, f"{title}, {unit}", parts)


def lines(
    title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]], *, doubling: bool = False
) -> str:
    """One line a name over common axes, from zero up and across, or, `doubling`, as far for each twice as much."""
    height = 440
    xs = sorted({x for points in series.values() for x, _ in points}) or [1.0]
    below = _steps(max((y for points in series.values() for _, y in points), default=1.0))
    marks = xs if doubling else _steps(xs[-1])
    first, last = (math.log2(xs[0]), math.log2(xs[-1])) if doubling else (0.0, marks[-1])

    def place_x(x: float) -> float:
        share = ((math.log2(x) if doubling else x) - first) / ((last - first) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        return height - BOTTOM - y / below[-1] * (height - BOTTOM - TOP)

    parts = [f'<text class="a" x="16" y="{TOP - 14}">{escape(up)}</text>']
    for mark in below:
        y = place_y(mark)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="a" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(mark)}</text>'
        )
    for mark in marks:
        x, y = place_x(mark), height - BOTTOM + 18
        parts.append(f'<text class="a" x="{x:.1f}" y="{y}" text-anchor="middle">{number(mark)}</text>')
    parts.append(
        f'<text class="a" x="{(LEFT + WIDTH) / 2}" y="{height - 8}" text-anchor="middle">{escape(across)}</text>'
    )
    legend = 40 + LETTER * len(up)
    for (name, points), tone in zip(series.items(), cycle(range(TONES))):
        drawn = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{drawn}" fill="none" style="stroke:var(--t{tone})" stroke-width="2"/>')
        parts += [
            f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3" style="fill:var(--t{tone})"/>'
            for x, y in points
        ]
        parts.append(f'<text x="{legend:.1f}" y="{TOP - 14}" style="fill:var(--t{tone})">{escape(name)}</text>')
        legend += 18 + LETTER * len(name)
    return _page(height, title, parts)


def number(value: float) -> str:
    """As short as it can be told: 0.021, 3.5, 1,200."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _steps(most: float) -> list[float]:
    """Round numbers from 0 to at least `most`."""
    rough = (most or 1) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * index for index in range(math.ceil((most or 1) / step) + 1)]


def _page(height: float, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">\n{STYLE}\n<text class="t" x="16" y="28">{escape(title)}</text>\n'
        f"{body}\n</svg>\n"
    )
