"""Which architectures shrink: each to half its multiply-adds, run, trained one step, saved, loaded, compared.

    python benchmarks/coverage.py               # all; writes benchmarks/results/coverage.json and docs/coverage.md
    python benchmarks/coverage.py swin llama    # only those, in place of their rows
    python benchmarks/coverage.py --page        # the page alone, from the results

Networks have their architecture at small sizes and random weights: what is tested is structure, not accuracy. One core
needs a few minutes.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coverage_networks
import tables
import torch
from torch import nn

import thresher
from thresher.budget.counts import call
from thresher.errors import InputError
from thresher.structure import first_tensor, load_folder, save_folder

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
BUDGET = "flops=50%"


def output(model: nn.Module, batch: Any) -> torch.Tensor:
    """The model's first output tensor in eval mode."""
    with torch.no_grad():
        return first_tensor(call(model.eval(), batch))


def shrunk(model: nn.Module, batches: list[Any]) -> tuple[Any, str]:
    """The result at half the multiply-adds: inside blocks where that is enough, else residual streams too."""
    options = {"calibration": batches, "allocation": "uniform", "most_rows": 512}
    try:
        return thresher.shrink_plan(model, "ispasp", BUDGET, **options), "inside"
    except InputError:  # the budget is out of reach, or nothing can be cut without touching a stream
        return thresher.shrink_plan(model, "ispasp", BUDGET, scope="across", **options), "across"


def trained(model: nn.Module, batch: Any) -> None:
    """One step of plain gradient descent."""
    model = copy.deepcopy(model).train()
    first_tensor(call(model, batch)).square().mean().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert grads, "no gradients"
    assert all(torch.isfinite(grad).all() for grad in grads), "gradients with NaN or infinity"
    torch.optim.SGD(model.parameters(), lr=1e-3).step()


def row_of(name: str, family: str, build: Callable[[], nn.Module], batch: Callable[[], Any]) -> dict[str, Any]:
    """One line of the table."""
    torch.manual_seed(0)
    row: dict[str, Any] = {"name": name, "family": family}
    began, step = time.perf_counter(), "built"
    try:
        model, batches = build().eval(), [batch() for _ in range(2)]
        dense = output(model, batches[0])
        step = "shrunk"
        result, scope = shrunk(model, batches)
        cut = [group for group in result.plan.groups if len(group.keep) < group.units]
        heads = [group for group in cut if group.kind == "heads"]
        report = result.report
        row |= {
            "scope": scope, "macs": report.macs, "total_macs": report.total_macs, "groups": len(cut),
            "head_groups": len(heads), "output_error": report.output_error,
            "left_whole": [f"{each}: {reason}" for each, reason in report.left_whole],
        }  # fmt: skip
        step = "run"
        small = output(result.model, batches[0])
        assert small.shape == dense.shape, f"output {tuple(small.shape)} instead of {tuple(dense.shape)}"
        assert torch.isfinite(small).all(), "output with NaN or infinity"
        step = "trained"
        trained(result.model, batches[0])
        step = "saved and loaded"
        with tempfile.TemporaryDirectory() as folder:
            save_folder(result.model, result.plan, folder)
            again = load_folder(folder, None if hasattr(model, "config") else build())
        assert torch.equal(output(again, batches[0]), small), "the loaded network gives other outputs"
        row["passed"] = True
    except Exception as error:
        row |= {"passed": False, "failed_at": step, "error": f"{type(error).__name__}: {error}"}
    return row | {"seconds": round(time.perf_counter() - began, 1)}


def coverage_table(rows: list[dict[str, Any]]) -> str:
    """One line per architecture."""
    passed = sum(row["passed"] for row in rows)
    lines = [f"{passed} of {len(rows)} pass.", ""]
    lines += ["| architecture | kind | multiply-adds left | groups cut | scope | result |", "|---|---|---|---|---|---|"]
    for row in rows:
        cut = share = ""
        if "macs" in row:
            share = f"{row['macs'] / row['total_macs']:.0%}"
            cut = str(row["groups"]) + (f", {row['head_groups']} of heads" if row["head_groups"] else "")
        words = "; ".join(row.get("error", "").replace("given: ", "").splitlines())
        result = "passes" if row["passed"] else f"**not {row['failed_at']}**: {words}"
        lines.append("| " + " | ".join([row["name"], row["family"], share, cut, row.get("scope", ""), result]) + " |")
    return "\n".join(lines)


def whole_table(rows: list[dict[str, Any]]) -> str:
    """Parts that other networks lose and these keep, with the reason that the report gives (the first of each kind)."""
    lines = ["| architecture | layer | reason |", "|---|---|---|"]
    for row in rows:
        told = set()
        for text in row.get("left_whole", []):
            layer, _, reason = text.partition(": ")
            key = re.sub(r"[0-9]+", "", text)
            plain = any(each in reason for each in ("no layer reads it", "the model's output", "scope='across'"))
            if not plain and key not in told:
                told.add(key)
                lines.append(f"| {row['name']} | `{layer}` | {reason.replace('|', '/')} |")
    return "\n".join(lines)


def write_page(rows: list[dict[str, Any]]) -> None:
    """Fill the marked blocks of docs/coverage.md."""
    blocks = {"coverage": coverage_table(rows), "whole": whole_table(rows)}
    PAGE.write_text(tables.fill(PAGE.read_text(), blocks))


def main(names: list[str]) -> None:
    """Run, write the results and the page."""
    if names == ["--page"]:
        write_page(json.loads(RESULTS.read_text()))
        return
    import transformers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    old = {row["name"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    rows = []
    for name, family, build, batch in coverage_networks.NETWORKS:
        if names and not any(each in name.lower() for each in names):
            rows += [old[name]] if name in old else []
            continue
        row = row_of(name, family, build, batch)
        rows.append(row)
        print(f"{name}: {'passes' if row['passed'] else row['error']} ({row['seconds']} s)", flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    write_page(rows)
    print(f"{sum(row['passed'] for row in rows)} of {len(rows)} pass")


if __name__ == "__main__":
    main([name.lower() for name in sys.argv[1:]])
