"""One self-contained page from run folders: what was asked, what was got, and how it went."""

from thresher.apps.report.expanding import run_folders
from thresher.apps.report.page import page_text, write_report
from thresher.apps.report.serving import Live

__all__ = ["Live", "page_text", "run_folders", "write_report"]
