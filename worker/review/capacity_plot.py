"""The trade between volume and recall as a picture: SVG, written by hand, because it needs no library."""

from html import escape
from typing import Final

from worker.review.capacity import Proposal, Trade

WIDTH: Final = 720
HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 48, 56
_STEPS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


def plot(proposal: Proposal) -> str:
    """Recall over the share of images that are reviewed, with the budget; without recall, the threshold instead."""
    has_recall = proposal.chosen.recall is not None
    label = "bad images that are seen" if has_recall else "threshold of quality"
    trades = [trade for trade in proposal.trades if not has_recall or trade.recall is not None]
    points = " ".join(f"{_x(trade.share):.1f},{_y(_height(trade, has_recall)):.1f}" for trade in trades)
    chosen_x, chosen_y = _x(proposal.chosen.share), _y(_height(proposal.chosen, has_recall))
    budget_x = _x(min(1.0, proposal.budget_a_day / proposal.images_a_day))
    title = (
        f"Below {proposal.chosen.threshold:.3f}: {proposal.chosen.items_a_day:,.0f} of "
        f"{proposal.images_a_day:,.0f} images a day"
    )
    if proposal.chosen.recall is not None:
        title += f", {proposal.chosen.recall:.0%} of the bad ones"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="26" font-size="16" fill="#1a1a1a">{escape(title)}</text>',
    ]
    for step in _STEPS:
        at = f"{step:.0%}" if has_recall else f"{1 + 4 * step:.0f}"
        parts += [
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{_y(step):.1f}" y2="{_y(step):.1f}" stroke="#e2e2e2"/>',
            f'<text x="{_LEFT - 8}" y="{_y(step) + 4:.1f}" text-anchor="end" fill="#555">{at}</text>',
            f'<text x="{_x(step):.1f}" y="{HEIGHT - _BOTTOM + 20}" text-anchor="middle" fill="#555">{step:.0%}</text>',
        ]
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts += [
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle" fill="#1a1a1a">'
        "images that are reviewed</text>",
        f'<text x="16" y="{middle}" text-anchor="middle" fill="#1a1a1a" transform="rotate(-90 16 {middle})">'
        f"{label}</text>",
        f'<line x1="{budget_x:.1f}" x2="{budget_x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" stroke="#b3261e" '
        'stroke-dasharray="4 4"><title>what reviewers can take</title></line>',
        f'<polyline points="{points}" fill="none" stroke="#2457c5" stroke-width="2"/>',
        f'<circle cx="{chosen_x:.1f}" cy="{chosen_y:.1f}" r="5" fill="#b3261e"><title>the proposal</title></circle>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _height(trade: Trade, has_recall: bool) -> float:
    """0 to 1 along the upright axis."""
    if has_recall:
        return trade.recall or 0.0
    return min(1.0, max(0.0, (trade.threshold - 1) / 4))


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
