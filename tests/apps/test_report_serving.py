"""Claims about `thresher watch`: one page, for this machine only, and nothing else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_folders import shrunk_run

from thresher.apps.report import Live
from thresher.errors import InputError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Live]:
    with Live([shrunk_run(tmp_path / "run")]) as live:
        worker = threading.Thread(target=live.serve_forever, kwargs={"poll_interval": 0.02})
        worker.start()
        yield live
        live.shutdown()
        worker.join()


def ask(server: Live, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text, policy = answer.read().decode(), answer.headers.get("Content-Type", "")
    connection.close()
    return answer.status, text, policy


def test_the_page_and_its_stamp_are_all_there_is(server: Live) -> None:
    status, page, kind = ask(server, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "What was cut: widths before and after" in page
    assert "connect-src &#39;self&#39;" in page
    assert ask(server, "/stamp")[1] == server.stamp()
    for path in ("/shrink.json", "/../shrink.json", "//etc/passwd", "/stamp?x", "/index.html"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/", method="POST")[0] == 501


def test_only_this_machine_is_served(server: Live) -> None:
    assert server.server_address[0] == "127.0.0.1"
    for name in ("evil.example", "evil.example:80", "", "localhost.evil.example:80"):
        assert ask(server, "/", host=name)[0] == 403
    assert ask(server, "/stamp", host=f"localhost:{server.server_port}")[0] == 200


def test_the_stamp_changes_with_the_data_and_not_without(server: Live, tmp_path: Path) -> None:
    before = server.stamp()
    assert server.stamp() == before
    (tmp_path / "run" / "metrics.jsonl").write_text('{"kind": "epoch", "step": 1, "accuracy": 50}\n')
    assert server.stamp() != before


def test_a_page_from_disk_asks_nobody(server: Live, tmp_path: Path) -> None:
    from thresher.apps.report import page_text

    text = page_text([tmp_path / "run"])
    assert "connect-src" not in text
    assert "/stamp" not in text


def test_a_taken_port_and_a_missing_folder_are_refused(server: Live, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a free port"):
        Live([tmp_path / "run"], server.server_port)
    with pytest.raises(InputError, match="a run folder"):
        Live([tmp_path / "nowhere"])
