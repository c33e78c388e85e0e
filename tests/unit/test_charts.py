"""Charts: marks stand where their values are, axes end at round numbers, and text from outside stays text."""

from xml.etree import ElementTree

import pytest

from worker.charts import Axis, Bar, Chart, Dot, Line, Tick, bar_chart, line_chart

HOSTILE = "<script>alert(1)</script>\"'&"


def axis(lowest: float = 0.0, highest: float = 10.0) -> Axis:
    return Axis("title", lowest, highest, [Tick(lowest, "low"), Tick(highest, "high", "word")])


def marks(svg: str, tag: str) -> list[ElementTree.Element]:
    return [node for node in ElementTree.fromstring(svg).iter() if node.tag.endswith(tag)]


def numbers(node: ElementTree.Element, *names: str) -> list[float]:
    return [float(node.get(name, "nan")) for name in names]


def test_marks_stand_where_their_values_are_and_never_outside_the_plot() -> None:
    dots = [Dot(0, 0, "red"), Dot(10, 10, "red"), Dot(5, 5, "red"), Dot(99, -99, "red")]
    low, high, middle, outside = (
        numbers(node, "cx", "cy") for node in marks(Chart("t", axis(), axis(), dots=dots).file(), "circle")
    )
    assert high[0] - low[0] == low[1] - high[1] == 320
    assert middle == [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2]
    assert outside == [high[0], low[1]]


def test_bars_that_stand_on_each_other_touch_and_are_as_high_as_their_values() -> None:
    bars = [Bar(0, 5, 0, 2, "red", "a"), Bar(0, 5, 2, 8, "blue", "b")]
    lower, upper = (
        numbers(node, "y", "height") for node in marks(Chart("t", axis(), axis(), bars=bars).file(), "rect")
    )
    assert upper[1] == pytest.approx(3 * lower[1])
    assert upper[0] + upper[1] == pytest.approx(lower[0])


def test_each_of_several_lines_is_named_beside_a_sample_of_its_stroke() -> None:
    lines = [Line(f"line {n}", "red", [(0, 0, ""), (1, 1, "")], stroke) for n, stroke in enumerate(("solid", "dotted"))]
    svg = Chart("t", axis(), axis(), lines).file()
    assert [node.text for node in marks(svg, "text") if node.get("class") == "name"] == ["line 0", "line 1"]
    assert svg.count("line dotted") == 2
    assert "name" not in {node.get("class") for node in marks(Chart("t", axis(), axis(), lines[:1]).file(), "text")}


def test_twice_as_much_is_as_far_everywhere_on_a_doubling_axis() -> None:
    svg = line_chart("t", "x", "y", {"a": [(1, 1), (2, 10), (4, 100)]}, doubling=True)
    places = [numbers(node, "cx")[0] for node in marks(svg, "circle")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert places[1] - places[0] > 100


@pytest.mark.parametrize("most", [1, 4, 5, 7, 39, 100, 2_512, 99_999, 0.0031, 0.5, 0.0])
def test_an_axis_reaches_over_the_highest_value_in_a_few_round_steps(most: float) -> None:
    made = Axis.from_zero("t", most, whole=most >= 1)
    values = [tick.value for tick in made.ticks]
    assert values[0] == 0
    assert made.highest == values[-1] >= most
    assert 2 <= len(values) <= 7
    assert f"{values[1]:.0e}"[0] in "125"


@pytest.mark.parametrize("inline", [True, False])
def test_text_from_outside_stays_text(inline: bool) -> None:
    hostile = Axis(HOSTILE, 0, 1, [Tick(0, HOSTILE, HOSTILE)])
    lines = [Line(HOSTILE, "red", [(0, 0, HOSTILE)], dots=True)] * 2
    chart = Chart(
        HOSTILE,
        hostile,
        hostile,
        lines,
        [Dot(0, 0, "red", HOSTILE)],
        [Bar(0, 1, 0, 1, "red", HOSTILE)],
        marker=(0, HOSTILE),
    )
    svg = chart.inline() if inline else chart.file()
    assert "<script" not in svg
    assert "script" not in {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg).iter()}
    assert "<script" not in bar_chart(HOSTILE, HOSTILE, {HOSTILE: 1.0})


def test_a_file_has_colours_for_light_and_dark_and_a_chart_in_a_page_leaves_them_to_the_page() -> None:
    chart = Chart("t", axis(), axis())
    assert "prefers-color-scheme:dark" in chart.file()
    assert "prefers-color-scheme" not in chart.inline()
    assert chart.inline() != chart.file()
