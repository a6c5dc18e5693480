"""One self-contained page from run folders: what was asked, what was got, and how it went."""

from thresher.apps.report.page import write_report

__all__ = ["write_report"]
