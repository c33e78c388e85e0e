"""Plots of results: SVG, written by hand as the product's own plots are, because it needs no library."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 52, 56
BAR, GAP, NAMES = 20, 10, 250
TONES = ("#2a6f97", "#c8553d", "#588157", "#8d6a9f", "#b08900", "#5c5c5c")

STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#333}.t{font-size:15px;font-weight:600}"
    ".a{fill:#777;font-size:12px}"
    "line,path{stroke:#ddd}svg{background:#fff}</style>"
)


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """One bar a name, the value at its end."""
    height = TOP + len(values) * (BAR + GAP) + 12
    most = max(values.values(), default=0) or 1
    room = WIDTH - NAMES - RIGHT - 70
    parts = []
    for place, (name, value) in enumerate(values.items()):
        y = TOP + place * (BAR + GAP)
        parts.append(
            f'<text x="{NAMES - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{NAMES}" y="{y}" width="{max(1.0, value / most * room):.1f}" height="{BAR}" fill="{TONES[0]}"/>'
            f'<text x="{NAMES + value / most * room + 8:.1f}" y="{y + 15}">{number(value)}</text>'
        )
    return _page(height, f"{title}, {unit}", parts)


def lines(
    title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]], *, logarithmic: bool = False
) -> str:
    """One line a name over common axes, from zero up, or, `logarithmic`, from the smallest power of ten up."""
    height = 440
    xs = [x for points in series.values() for x, _ in points] or [0.0]
    ys = [y for points in series.values() for _, y in points] or [0.0]
    ticks = _powers(min(ys), max(ys)) if logarithmic else _steps(max(ys))
    low, high = (math.log10(ticks[0]), math.log10(ticks[-1])) if logarithmic else (0.0, ticks[-1])
    right = _steps(max(xs))

    def place_x(x: float) -> float:
        return LEFT + x / right[-1] * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        share = ((math.log10(y) if logarithmic else y) - low) / (high - low)
        return height - BOTTOM - share * (height - BOTTOM - TOP)

    parts = []
    for tick in ticks:
        y = place_y(tick)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="a" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    for tick in right:
        x, y = place_x(tick), height - BOTTOM + 18
        parts.append(f'<text class="a" x="{x:.1f}" y="{y}" text-anchor="middle">{number(tick)}</text>')
    parts.append(
        f'<text class="a" x="{(LEFT + WIDTH) / 2}" y="{height - 8}" text-anchor="middle">{escape(across)}</text>'
    )
    for index, ((name, points), tone) in enumerate(zip(series.items(), cycle(TONES))):
        drawn = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{tone}" stroke-width="2"/>')
        parts += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3" fill="{tone}"/>' for x, y in points]
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 16 + 17 * index}" style="fill:{tone}">{escape(name)}</text>')
    return _page(height, f"{title}: {up}", parts)


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


def _powers(least: float, most: float) -> list[float]:
    first = math.floor(math.log10(max(least, 1e-9)))
    last = max(first + 1, math.ceil(math.log10(max(most, 1e-9))))
    return [10.0**exponent for exponent in range(first, last + 1)]


def _page(height: float, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">\n{STYLE}\n<text class="t" x="16" y="28">{escape(title)}</text>\n'
        f"{body}\n</svg>\n"
    )
