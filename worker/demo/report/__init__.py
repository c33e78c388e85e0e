"""The report on a run: one HTML file that needs nothing beside it."""

from worker.demo.report.entry import ReportEntry
from worker.demo.report.page import ScoreReport, write_report
from worker.demo.report.tally import Tally
from worker.demo.report.thumbnail import thumbnail

__all__ = ["ReportEntry", "ScoreReport", "Tally", "thumbnail", "write_report"]
