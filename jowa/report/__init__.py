"""The results of the suite as one HTML page and as Markdown: ``python -m jowa.report``."""

from jowa.report.build import build_report, write_report

__all__ = ["build_report", "write_report"]
