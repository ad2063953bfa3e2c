"""What people look at: one self-contained HTML page, a PNG panel, and `summary.json`."""

from cfx.report.page import write_report
from cfx.report.panel import panel
from cfx.runtime.folder import write_summary

__all__ = ["panel", "write_report", "write_summary"]
