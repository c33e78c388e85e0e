"""Charts as SVG text: lines, dots and bars over two axes, and bars with names. Pure; no library is needed.

A chart within a page takes its colours from the page's CSS variables (--ink, --soft, --line, --card, and what the marks
name). As a file of its own it defines them, for light and dark.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Final, Literal

Stroke = Literal["solid", "dashed", "dotted"]
STROKES: Final[tuple[Stroke, ...]] = ("solid", "dashed", "dotted")
TONES: Final = tuple(f"var(--t{number})" for number in range(6))
"""Colours of a chart that is a file of its own."""
FILE_WIDTH: Final = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 12, 50
TITLE_HEIGHT, ROW_HEIGHT = 34, 20
LETTER: Final = 7.2
"""Pixels that a letter takes at most, about; the font is not known here."""
SAMPLE: Final = 22
"""Pixels of the stroke beside a name in the legend."""
FILE_PLOT_WIDTH: Final = FILE_WIDTH - LEFT - RIGHT
"""The plot area's width in a file that is FILE_WIDTH wide."""
BAR, GAP, VALUE = 20, 10, 70
FEW_DOTS: Final = 100

_STYLE: Final = (
    ".chart text{font:12px system-ui,sans-serif;fill:var(--soft)}.chart .title{font-size:15px;font-weight:600;"
    "fill:var(--ink)}.chart .name{fill:var(--ink)}.chart .grid{stroke:var(--line)}.chart .axis{stroke:var(--soft)}"
    ".chart .diagonal{stroke:var(--soft);stroke-dasharray:3 4}.chart .line{fill:none;stroke-width:2}"
    ".chart .dashed{stroke-dasharray:8 4}.chart .dotted{stroke-dasharray:2 3}"
    ".chart .dot{fill-opacity:.75;stroke:var(--card)}"
)
_THEME: Final = (
    ".chart{background:var(--card);--card:#fff;--ink:#333;--soft:#5d5d5d;--line:#ddd;"
    "--t0:#2a6f97;--t1:#c8553d;--t2:#4f7a4a;--t3:#8d6a9f;--t4:#946f00;--t5:#5c5c5c}"
    "@media(prefers-color-scheme:dark){.chart{--card:#16181b;--ink:#e4e4e4;--soft:#a8a8a8;--line:#3a3d41;"
    "--t0:#6fb3dc;--t1:#ee8a74;--t2:#8fc089;--t3:#c3a3d6;--t4:#d9b44a;--t5:#b5b5b5}}"
)


@dataclass(frozen=True, slots=True)
class Tick:
    """A value on an axis with its label; `word` stands below the label."""

    value: float
    label: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `lowest` to `highest`; what lies outside is drawn at the end. `doubling`: as far for each twice as
    much."""

    title: str
    lowest: float
    highest: float
    ticks: Sequence[Tick]
    doubling: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value stands, from 0 to 1."""
        value, lowest, highest = (
            (math.log2(each) if self.doubling else each) for each in (value, self.lowest, self.highest)
        )
        return min(1.0, max(0.0, (value - lowest) / ((highest - lowest) or 1.0)))

    @classmethod
    def from_zero(cls, title: str, most: float, *, whole: bool = False) -> "Axis":
        """From 0 to a round number of at least `most`, with about five ticks; on whole numbers only, if `whole`."""
        rough = (most if most > 0 else 1.0) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
        step = max(1.0, step) if whole else step
        steps = [step * index for index in range(max(1, math.ceil(most / step - 1e-9)) + 1)]
        return cls(title, 0.0, steps[-1], [Tick(value, number(value)) for value in steps])


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark at a value, with what hovering shows; `colour` is CSS."""

    x: float
    y: float
    colour: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line through the points. Lines of one chart differ in strokes too, for readers who see few colours. `dots`:
    each point is marked, and hovering shows its title."""

    name: str
    colour: str
    points: Sequence[tuple[float, float, str]]
    stroke: Stroke = "solid"
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """An area from `left` to `right` and from `bottom` to `top`, in the axes' values."""

    left: float
    right: float
    bottom: float
    top: float
    colour: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`width` and `height` are the plot area's, in pixels. `marker`: an upright line at a value, with its title."""

    title: str
    across: Axis
    up: Axis
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    bars: Sequence[Bar] = ()
    diagonal: bool = False
    marker: tuple[float, str] | None = None
    width: int = 320
    height: int = 320

    def inline(self) -> str:
        """The SVG element for a page that shows the title itself."""
        return self._svg(is_file=False)

    def file(self) -> str:
        """An SVG file, with its title."""
        return self._svg(is_file=True)

    def _svg(self, *, is_file: bool) -> str:
        rows = _legend_rows(self.lines, self.width)
        head = (TITLE_HEIGHT if is_file else 0) + len(rows) * ROW_HEIGHT
        parts = [f'<text class="title" x="16" y="24">{escape(self.title)}</text>'] if is_file else []
        for index, row in enumerate(rows):
            y = TOP + head - (len(rows) - index) * ROW_HEIGHT
            parts += [_legend_entry(LEFT + x, y, line) for x, line in row]
        parts += self._marks(TOP + head)
        size = (LEFT + self.width + RIGHT, TOP + head + self.height + BOTTOM)
        return _element(self.title, *size, parts, is_file=is_file)

    def _marks(self, top: int) -> Iterator[str]:
        def x_of(value: float) -> float:
            return LEFT + self.across.share(value) * self.width

        def y_of(value: float) -> float:
            return top + (1.0 - self.up.share(value)) * self.height

        right, bottom = LEFT + self.width, top + self.height
        for tick in self.up.ticks:
            y = y_of(tick.value)
            yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(LEFT - 8, y + 4, tick.label, "end")
        for tick in self.across.ticks:
            x = x_of(tick.value)
            if not self.bars:
                yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            yield _text(x, bottom + 18, tick.label, "middle")
            if tick.word:
                yield _text(x, bottom + 34, tick.word, "middle")
        for bar in self.bars:
            left, high = x_of(bar.left) + 1, y_of(bar.top)
            yield (
                f'<rect x="{left:.1f}" y="{high:.1f}" width="{x_of(bar.right) - 1 - left:.1f}" '
                f'height="{y_of(bar.bottom) - high:.1f}" rx="1.5" style="fill:{bar.colour}">{_hover(bar.title)}</rect>'
            )
        if self.bars:
            yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        if self.diagonal:
            yield f'<line class="diagonal" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{top}"/>'
        if self.marker is not None:
            x = x_of(self.marker[0])
            yield (
                f'<line class="dashed" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" '
                f'style="stroke:{TONES[1]}">{_hover(self.marker[1])}</line>'
            )
        for line in self.lines:
            points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y, _ in line.points)
            style = f'style="stroke:{line.colour}"'
            yield f'<polyline class="line {line.stroke}" points="{points}" {style}>{_hover(line.name)}</polyline>'
        radius = 2.5 if len(self.dots) > FEW_DOTS else 5
        marked = [Dot(x, y, line.colour, title) for line in self.lines if line.dots for x, y, title in line.points]
        for dots, size in ((marked, 3.5), (self.dots, radius)):
            for dot in dots:
                yield (
                    f'<circle class="dot" cx="{x_of(dot.x):.1f}" cy="{y_of(dot.y):.1f}" r="{size}" '
                    f'style="fill:{dot.colour}">{_hover(dot.title)}</circle>'
                )
        if self.across.title:
            yield _text(LEFT + self.width / 2, bottom + 42, self.across.title, "middle")
        if self.up.title:
            middle = top + self.height / 2
            yield (
                f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
                f"{escape(self.up.title)}</text>"
            )


def line_chart(
    title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]], *, doubling: bool = False
) -> str:
    """A file with one line a name, from zero up and across, or, `doubling`, as far for each twice as much across."""
    xs = sorted({x for points in series.values() for x, _ in points}) or [1.0]
    most = max((y for points in series.values() for _, y in points), default=1.0)
    x_axis = Axis.from_zero(across, xs[-1])
    if doubling:
        x_axis = Axis(across, xs[0], xs[-1], [Tick(value, number(value)) for value in xs], doubling=True)
    lines = [
        Line(name, tone, [(x, y, f"{name}: {number(y)} at {number(x)}") for x, y in points], dots=True)
        for (name, points), tone in zip(series.items(), cycle(TONES))
    ]
    return Chart(title, x_axis, Axis.from_zero(up, most), lines, width=FILE_PLOT_WIDTH, height=314).file()


def bar_chart(title: str, unit: str, values: Mapping[str, float]) -> str:
    """A file with one bar a name, and the value at its end."""
    left = 24 + LETTER * max(map(len, values), default=0)
    space = FILE_WIDTH - left - RIGHT - VALUE
    most = max(values.values(), default=0) or 1
    parts = [f'<text class="title" x="16" y="28">{escape(f"{title}, {unit}")}</text>']
    for place, (name, value) in enumerate(values.items()):
        y = 52 + place * (BAR + GAP)
        length = max(1.0, value / most * space)
        parts.append(
            f'<text class="name" x="{left - 8:.1f}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left:.1f}" y="{y}" width="{length:.1f}" height="{BAR}" style="fill:{TONES[0]}"/>'
            f'<text class="name" x="{left + length + 8:.1f}" y="{y + 15}">{number(value)}</text>'
        )
    return _element(f"{title}, {unit}", FILE_WIDTH, 64 + len(values) * (BAR + GAP), parts, is_file=True)


def number(value: float) -> str:
    """A short form: 0.021, 3.5, 1,200."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _legend_rows(lines: Sequence[Line], width: int) -> list[list[tuple[float, Line]]]:
    """Where each name stands, row by row; a chart with one line needs no legend."""
    rows: list[list[tuple[float, Line]]] = []
    x = float("inf")
    for line in lines if len(lines) > 1 else ():
        needed = SAMPLE + 6 + LETTER * len(line.name) + 12
        if x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, line))
        x += needed
    return rows


def _legend_entry(x: float, y: float, line: Line) -> str:
    return (
        f'<line class="line {line.stroke}" x1="{x:.1f}" x2="{x + SAMPLE:.1f}" y1="{y:.1f}" y2="{y:.1f}" '
        f'style="stroke:{line.colour}"/><text class="name" x="{x + SAMPLE + 6:.1f}" y="{y + 4:.1f}">'
        f"{escape(line.name)}</text>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _hover(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""


def _element(title: str, width: float, height: float, parts: Sequence[str], *, is_file: bool) -> str:
    body = "\n".join(parts)
    attributes = ' xmlns="http://www.w3.org/2000/svg"' if is_file else ""
    return (
        f'<svg class="chart"{attributes} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">\n'
        f"<style>{_THEME if is_file else ''}{_STYLE}</style>\n{body}\n</svg>\n"
    )
