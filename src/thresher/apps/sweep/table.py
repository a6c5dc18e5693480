"""SWEEP/sweep.json and the table that people read: from the book and the run folders, at any moment."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from thresher.apps.runs import Run
from thresher.apps.sweep.rows import COSTS, MEASURES, Row, pareto
from thresher.apps.sweep.sweep import Sweep
from thresher.apps.train import Result
from thresher.budget.report import aligned, write_text

VERSION = 1
FILE = "sweep.json"
_NAMES = {"accuracy": "accuracy", "zeros": "zeros", "bytes": "bytes", "macs": "multiply-adds"}


def sweep_record(sweep: Sweep) -> dict[str, Any]:
    """All that is known so far, as plain data.

    `rows`: the table, means and standard deviations over seeds. `pareto`: for zeros, bytes and macs, the rows that no
    other row beats, as `{"row": number, COST: mean, "accuracy": mean}`. `runs`: every planned run with its state
    (left, running, done, failed), folder, settings and error. `tuning`: each group with its runs and the best of them.
    """
    rows = table_rows(sweep)
    entries = sweep.entries()
    runs = []
    for run in sweep.runs:
        entry = entries.get(run.name)
        state = "left" if entry is None or entry.state == "waiting" else entry.state
        runs.append(
            {
                "name": run.name,
                "folder": str(sweep.path(run).relative_to(sweep.folder)),
                "method": run.method,
                "budget": run.budget,
                "seed": run.seed,
                "settings": {} if entry is None else dict(entry.settings),
                "state": "failed" if sweep.blocked(run) else state,
                "accuracy": None if entry is None else entry.value,
                "error": "none of its tuning runs ended well" if sweep.blocked(run) else entry.error if entry else None,
            }
        )
    return {
        "version": VERSION,
        "kind": "sweep",
        "rows": [row.to_dict() for row in rows],
        "pareto": {cost: [_point(rows, number, cost) for number in pareto(rows, cost)] for cost in COSTS},
        "runs": runs,
        "tuning": [_group(sweep, number) for number in range(len(sweep.groups))],
    }


def write_table(sweep: Sweep) -> None:
    """Write SWEEP/sweep.json, whole or not at all."""
    with sweep.mutex:  # so that an older table of one worker never replaces a newer one of another
        write_text(sweep.folder / FILE, json.dumps(sweep_record(sweep), indent=1))


def table_rows(sweep: Sweep) -> list[Row]:
    """One row for each method, budget and learning rate, in the order of the sweep."""
    entries = sweep.entries()
    places: dict[tuple[str, str, float | None], dict[int, Result]] = {}
    chosen: dict[tuple[str, str, float | None], dict[str, Any]] = {}
    for run in sweep.runs:
        key = (run.method, run.budget, run.lr)
        results = places.setdefault(key, {})
        entry = entries.get(run.name)
        settings = {"lr": run.lr} if entry is None or not entry.settings else dict(entry.settings)
        chosen.setdefault(key, {}).update({name: value for name, value in settings.items() if value is not None})
        if entry is not None and entry.state == "done" and (result := Result.of(Run(sweep.path(run)))):
            results[run.seed] = result
    rows = []
    for (method, budget, lr), results in places.items():
        settings = _told(method, chosen[method, budget, lr])
        rows.append(Row.of(method, budget, settings, results, len(sweep.config.seeds)))
    return rows


def table_lines(sweep: Sweep) -> list[str]:
    """The table, what no other row beats, and what failed."""
    rows, record = table_rows(sweep), sweep_record(sweep)
    cells = [("method", "budget", "settings", "seeds", *(_NAMES[name] for name in MEASURES))]
    for row in rows:
        settings = ", ".join(f"{name}={value}" for name, value in row.settings.items())
        seeds = f"{len(row.seeds)}" if len(row.seeds) == row.asked else f"{len(row.seeds)} of {row.asked}"
        cells.append((row.method, row.budget, settings, seeds, *(_cell(row, name) for name in MEASURES)))
    lines = [
        *aligned(cells),
        "",
        "mean ± standard deviation over the seeds; multiply-adds for one image, zeros not counted",
    ]
    fronts: dict[tuple[int, ...], list[str]] = {}
    for cost in COSTS:
        if front := pareto(rows, cost):
            fronts.setdefault(tuple(front), []).append(_NAMES[cost])
    twice = Counter((row.method, row.budget) for row in rows)
    for numbers, costs in fronts.items():
        named = [rows[n].title if twice[rows[n].method, rows[n].budget] > 1 else rows[n].place for n in numbers]
        lines.append(f"Pareto front of accuracy against {_and(costs)}: {'; '.join(named)}")
    why: dict[str, list[str]] = {}
    for run in record["runs"]:
        if run["state"] == "failed":
            why.setdefault(short_error(run["error"]), []).append(run["name"])
    tuning = [(f"{group['name']}/{run['name']}", run) for group in record["tuning"] for run in group["runs"]]
    for name, run in tuning:
        if run["state"] == "failed":
            why.setdefault(short_error(run["error"]), []).append(name)
    lines += [f"failed: {error}: {', '.join(names)}" for error, names in why.items()]
    diverged = [name for name, run in tuning if run["state"] == "done" and run["error"]]
    return [*lines, *([f"diverged in tuning, counted as 0 %: {', '.join(diverged)}"] if diverged else [])]


def short_error(error: str | None) -> str:
    """What was given, of an error in three parts; the first line of any other."""
    text = (error or "unknown error").partition("; expected: ")[0].removeprefix("given: ")
    return text.splitlines()[0]


def _told(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a row shows them: of the method's text only the fields that tuning added."""
    text = settings.pop("method", method)
    before = method.partition(":")[2].split(",")
    fields = [part for part in text.partition(":")[2].split(",") if part and part not in before]
    return {**settings, **dict(part.split("=", 1) for part in fields)}


def _cell(row: Row, name: str) -> str:
    spread = row.spreads.get(name)
    if spread is None:
        return "-"
    digits, unit = (2, " %") if name == "accuracy" else (0, "")
    # A budget that is met exactly gives the same zeros with every seed.
    std = f" ± {spread.std:,.{digits}f}" if spread.std is not None and (spread.std > 0 or name == "accuracy") else ""
    return f"{spread.mean:,.{digits}f}{std}{unit}"


def _point(rows: list[Row], number: int, cost: str) -> dict[str, Any]:
    spreads = rows[number].spreads
    return {"row": number, cost: spreads[cost].mean, "accuracy": spreads["accuracy"].mean}


def _group(sweep: Sweep, number: int) -> dict[str, Any]:
    group = sweep.groups[number]
    best = sweep.best(group)
    return {
        "name": group.name,
        "method": group.method,
        "budget": group.budget,
        "asked": sweep.config.tune,
        "runs": [
            {
                "name": entry.run,
                "settings": dict(entry.settings),
                "state": "left" if entry.state == "waiting" else entry.state,
                "accuracy": entry.value,
                "error": entry.error,
            }
            for entry in sweep.tuning(group).values()
        ],
        "best": None if best is None else best.run,
    }


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
