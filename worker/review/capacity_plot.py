"""The trade between volume and recall as a picture."""

from worker.charts import FILE_PLOT_WIDTH, TONES, Axis, Chart, Dot, Line, Tick
from worker.review.capacity import Proposal, Trade

_SHARES = [Tick(step / 4, f"{step / 4:.0%}") for step in range(5)]


def plot(proposal: Proposal) -> str:
    """Recall over the share of images that are reviewed, with the budget; without recall, the threshold instead.
    An SVG file."""
    has_recall = proposal.chosen.recall is not None
    trades = [trade for trade in proposal.trades if not has_recall or trade.recall is not None]
    chosen = proposal.chosen
    title = f"Below {chosen.threshold:.3f}: {chosen.items_a_day:,.0f} of {proposal.images_a_day:,.0f} images a day"
    if chosen.recall is not None:
        title += f", {chosen.recall:.0%} of the bad ones"
        up = Axis("bad images that are seen", 0.0, 1.0, _SHARES)
    else:
        up = Axis("threshold of quality", 1.0, 5.0, [Tick(value, str(value)) for value in range(1, 6)])
    points = [(trade.share, _height(trade, has_recall), _told(trade)) for trade in trades]
    budget = proposal.budget_a_day / proposal.images_a_day
    return Chart(
        title,
        Axis("images that are reviewed", 0.0, 1.0, _SHARES),
        up,
        [Line("", TONES[0], points)],
        [Dot(chosen.share, _height(chosen, has_recall), TONES[1], f"the proposal: {_told(chosen)}")],
        marker=(budget, "what reviewers can take"),
        width=FILE_PLOT_WIDTH,
        height=324,
    ).file()


def _height(trade: Trade, has_recall: bool) -> float:
    return (trade.recall or 0.0) if has_recall else trade.threshold


def _told(trade: Trade) -> str:
    return f"below {trade.threshold:.3f}, {trade.items_a_day:,.0f} images a day"
