"""The README's code blocks are tests; what several folders of tests ask for."""

import signal
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell that runs the tests in the background ignores Ctrl-C, and every process that they start inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, in which it runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def engine_library() -> None:
    """The sparse engine's library, built once where a compiler is there and a source is newer."""
    from thresher.deploy.engine import build

    if build.compiler() is None and not build.LIBRARY.exists():
        pytest.skip("no C++ compiler")
    if build.is_stale():
        build.build()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    pattern="README.md",
    path=str(Path(__file__).parent),
).pytest()
