"""One HTML page of results that needs no other file and no network.

gathering   images and their results → what the page shows of them
plots       scores as pictures
tables      figures as tables
page        all of it, in pages that a browser opens at once
"""

from __future__ import annotations

from energyad.report.gathering import Report, ReportImage, of_category, of_images, of_results
from energyad.report.page import html_page, write_report

__all__ = ["Report", "ReportImage", "html_page", "of_category", "of_images", "of_results", "write_report"]
