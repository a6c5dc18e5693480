"""The engine's tests need its library: it is built once where a compiler is there and a source is newer."""

import pytest

from thresher.deploy.engine import build


@pytest.fixture(autouse=True, scope="session")
def _library() -> None:
    if build.compiler() is None and not build.LIBRARY.exists():
        pytest.skip("no C++ compiler")
    if build.is_stale():
        build.build()
