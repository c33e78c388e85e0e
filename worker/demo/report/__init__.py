"""The report on a run: one HTML file that needs nothing beside it."""

from worker.demo.report.entry import Entry
from worker.demo.report.page import Report, write_report
from worker.demo.report.tally import Tally
from worker.demo.report.thumbnail import thumbnail

__all__ = ["Entry", "Report", "Tally", "thumbnail", "write_report"]
