"""The page's colours have the contrast that WCAG 2.2 asks for (1.4.3 text 4.5:1, 1.4.11 controls 3:1)."""

import re

import pytest

from worker.review.http.page import FILES


def colors(theme: str) -> dict[str, str]:
    css = (FILES / "css" / "base.css").read_text()
    blocks = {"light": r":root \{(.*?)\n\}", "dark": r':root\[data-theme="dark"\] \{(.*?)\n\}'}
    found: dict[str, str] = {}
    for name in ["light", theme]:
        block = re.search(blocks[name], css, re.DOTALL)
        assert block is not None
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[1]))
    return found


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TEXT = [
    *((ink, ground) for ink in ("ink", "soft") for ground in ("ground", "card", "raised", "well", "stage")),
    *((tone, ground) for tone in ("accent", "pass", "review", "reject") for ground in ("ground", "card")),
    *((tone, f"{tone}-wash") for tone in ("accent", "pass", "review", "reject")),
    ("on-fill", "pass-fill"),
    ("on-fill", "reject-fill"),
    ("ground", "ink"),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_can_be_read(theme: str, text: str, ground: str) -> None:
    found = colors(theme)
    assert contrast(found[text], found[ground]) >= 4.5, (found[text], found[ground])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("part", "ground"), [("edge", "card"), ("edge", "ground"), ("accent", "stage"), ("a5", "well")]
)
def test_fields_focus_and_charts_can_be_seen(theme: str, part: str, ground: str) -> None:
    found = colors(theme)
    assert contrast(found[part], found[ground]) >= 3.0, (found[part], found[ground])
