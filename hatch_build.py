"""Compiles the sparse engine's kernels into the package; without a C++ compiler it installs without them."""

import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ENGINE = "src/thresher/deploy/engine"


class KernelBuild(BuildHookInterface):
    """Runs engine/build.py before the files are collected; the wheel then serves every Python of this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        path = Path(self.root) / ENGINE / "build.py"
        spec = importlib.util.spec_from_file_location("engine_build", path)
        assert spec is not None
        assert spec.loader is not None
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        try:
            library = recipe.build()
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", "") or str(error)
            self.app.display_warning(f"thresher's sparse engine is left out (dense fallback): {detail[:2000]}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(f"{ENGINE}/{library.name}")
