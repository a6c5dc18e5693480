"""The native sources under the address and undefined-behaviour sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest

from thresher.deploy.engine import build

pytestmark = pytest.mark.usefixtures("engine_library")


@pytest.mark.timeout(900)  # many seconds of compiling, minutes on a busy machine
@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
def test_the_kernels_run_clean_under_sanitizers(tmp_path: Path) -> None:
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    try:
        program = build.build(tmp_path / "native", flags=flags, main=Path(__file__).parent / "native_test.cpp")
    except subprocess.CalledProcessError as error:
        if "asan" in (error.stderr or ""):
            pytest.skip("the sanitizers' libraries are not installed")
        raise AssertionError(error.stderr) from error
    # Worker threads live as long as the process: what they hold is not lost.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program, "40"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
