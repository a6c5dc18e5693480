"""The same page while a run goes on, for this machine only: the page asks for news and takes them in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from thresher.apps.report.expanding import run_folders
from thresher.apps.report.page import page_text
from thresher.errors import InputError, ThresherError

HOST = "127.0.0.1"
_NAMES = ("localhost", HOST)


class Live(ThreadingHTTPServer):
    """A server of one page about `runs` on 127.0.0.1; `port` 0 takes a free one. `url`: where the page is.

    Only two addresses exist, the page and the stamp of its data; no file is served. Requests that name another host are
    refused, so that no web page can read it through a name of its own.

    Errors: InputError for paths that are no folders, or a port that is taken.
    """

    daemon_threads = True

    def __init__(self, runs: Sequence[Path], port: int = 0) -> None:
        self.runs = [Path(run) for run in runs]
        run_folders(self.runs)
        try:
            super().__init__((HOST, port), _Answer)
        except OSError as error:
            raise InputError(f"port {port} ({error.strerror})", "a free port", "choose another --port") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def stamp(self) -> str:
        """A text that changes when any file of the runs does."""
        digest = hashlib.sha256()
        for folder in run_folders(self.runs):
            for path in sorted([*folder.glob("*.json*"), *folder.glob("trail/*.safetensors")]):
                try:
                    status = path.stat()
                except OSError:  # replaced at this moment
                    continue
                digest.update(f"{path}\0{status.st_mtime_ns}\0{status.st_size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


class _Answer(BaseHTTPRequestHandler):
    server: Live

    def do_GET(self) -> None:
        """The page, or its stamp."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in _NAMES:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "only for this machine")
            return
        try:
            if self.path == "/":
                stamp = self.server.stamp()  # before reading: what changes meanwhile is news again
                self._send(HTTPStatus.OK, "text/html", page_text(self.server.runs, stamp=stamp))
            elif self.path == "/stamp":
                self._send(HTTPStatus.OK, "text/plain", self.server.stamp())
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", "no such page")
        except (ThresherError, OSError) as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error))

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode(errors="replace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the library never prints."""
