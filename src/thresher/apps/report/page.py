"""Run folders in, one HTML file out that needs nothing else: no network, no folder beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thresher.apps.report.expanding import run_folders
from thresher.apps.report.explorer import LABELS, Place, places_of
from thresher.budget.report import write_text
from thresher.errors import InputError
from thresher.plots.figures import OF_ONE_RUN, OF_SEVERAL_RUNS, Detail, Figure
from thresher.plots.figures.bunches import best_settings, timed_alike
from thresher.plots.formats import count, flat, percent, share, short, size
from thresher.plots.outcome import Outcome, outcome_of
from thresher.plots.reading import FILES, ONLY_PRUNED, Run, read_run, run_of_bench

LIMIT = 1_500_000
# Tried in turn until the page is small enough: detail, and runs with a section of their own.
_DETAILS = (
    (Detail(), 40),
    (Detail(points=150, rows=120, frames=24, histograms=20), 40),
    (Detail(points=60, rows=60, frames=12, histograms=8), 24),
    (Detail(points=30, rows=20, frames=6, histograms=3), 12),
    (Detail(points=12, rows=8, frames=4, histograms=1), 6),
)
_SETTINGS = 40
_LISTED, _COLUMNS = 300, 40  # runs in the table of all, and beside each other


@dataclass(frozen=True, kw_only=True)
class Section:
    """One run on the page. `absent`: plots that could not be drawn, with the file that they need."""

    anchor: str
    run: Run
    outcome: Outcome
    figures: tuple[tuple[str, Figure], ...]
    absent: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    places: tuple[Place, ...] = ()


def write_report(runs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """One self-contained HTML page (under 1.5 MB) about `runs`, written to `out`; returns `out`.

    A run folder may lack any file, or hold half of one: the page says what is missing. Text from run folders is data:
    none of it can become markup or script.

    Errors: InputError for no run, for a path that is no folder, for an `out` that cannot be written.
    """
    write_text(Path(out), page_text(runs))
    return Path(out)


def page_text(runs: Sequence[str | os.PathLike[str]], *, stamp: str | None = None) -> str:
    """The page about `runs` as text; with `stamp` one that asks its server for news (see `serving.py`).

    Errors: as `write_report`.
    """
    if not runs:
        raise InputError("no run folders", "at least one", "pass the folder of a finished or running run")
    folders = run_folders([Path(run) for run in runs])
    html, networks = "", 0
    found: list[Run] = []
    for detail, sections in _DETAILS:
        if detail.frames != networks:
            networks = detail.frames
            found = [read_run(folder, name, networks) for folder, name in zip(folders, _names(folders), strict=True)]
        html = render(found, detail, sections, stamp)
        if len(html.encode()) < LIMIT:
            break
    return html


def render(runs: Sequence[Run], detail: Detail, most_sections: int, stamp: str | None = None) -> str:
    """The page as text. Runs past `most_sections` stand in the comparison only."""
    outcomes = [outcome_of(run) for run in runs]
    sections = [_section(number, run, outcomes[number], detail) for number, run in enumerate(runs[:most_sections])]
    several = len(runs) > 1
    alike, condition = timed_alike(outcomes)
    drawn = [draw(outcomes) for draw in OF_SEVERAL_RUNS.values()] if several else []
    comparison = tuple((f"all-{number}", figure) for number, figure in enumerate(drawn) if figure is not None)
    plots = [*comparison, *(pair for section in sections for pair in section.figures)]
    environment = Environment(
        loader=PackageLoader("thresher.apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "share": share, "size": size, "short": short, "count": count}
    scripts = [_asset("vendor/uPlot.iife.min.js"), _asset("templates/charts.js"), _asset("templates/page.js")]
    scripts += [] if stamp is None else [_asset("templates/live.js")]
    return environment.get_template("page.html").render(
        title=f"{runs[0].name}: pruning report" if not several else f"{len(runs)} pruning runs",
        outcomes=outcomes,
        sections=sections,
        timed=condition,
        comparison=comparison,
        differing=_differing(runs[:_COLUMNS]) if several else None,
        listed=alike[:_LISTED],
        compared=outcomes[:_COLUMNS],
        best=best_settings(outcomes) if several else None,
        labels=LABELS,
        stamp=stamp,
        # Raw text inside <script> and <style>: our own files, and JSON that holds no < > or &.
        scripts=[Markup(script) for script in scripts],
        styles=[Markup(_asset("vendor/uPlot.min.css")), Markup(_asset("templates/page.css"))],
        data=Markup(embedded_json({anchor: figure.to_dict() for anchor, figure in plots})),
        trails=Markup(embedded_json({one.anchor: [place.to_dict() for place in one.places] for one in sections})),
        policy=_policy(scripts, live=stamp is not None),
    )


def embedded_json(value: Any) -> str:
    """JSON that stays inert inside a script element, whatever texts it holds.

    >>> print(embedded_json("</script>&"))
    "\\u003c/script\\u003e\\u0026"
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(number: int, run: Run, outcome: Outcome, detail: Detail) -> Section:
    figures, absent = [], []
    for place, (title, file, draw) in enumerate(OF_ONE_RUN.values()):
        figure = draw(run, detail)
        if figure is not None:
            figures.append((f"run-{number}-{place}", figure))
        elif file in FILES and not (run.shrink or run_of_bench(run) or (file in ONLY_PRUNED and not run.pruned)):
            absent.append((title, file))
    return Section(
        anchor=f"run-{number}",
        run=run,
        outcome=outcome,
        figures=tuple(figures),
        absent=tuple(absent),
        settings=tuple(flat(run.config).items())[:_SETTINGS],
        places=places_of(run),
    )


def _differing(runs: Sequence[Run]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Settings in which the runs differ: (name, value in each run)."""
    settings = [flat(run.config) for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = ((name, tuple(each.get(name, "–") for each in settings)) for name in names)
    return tuple((name, values) for name, values in rows if len(set(values)) > 1)[:_SETTINGS]


def _names(folders: Sequence[Path]) -> list[str]:
    """The folder's own name; with its parent's where two are alike; numbered where that is not enough."""
    whole = [folder.resolve() for folder in folders]
    short = [folder.name for folder in whole]
    names = [
        f"{folder.parent.name}/{name}" if short.count(name) > 1 else name
        for folder, name in zip(whole, short, strict=True)
    ]
    return [f"{name} ({place + 1})" if names.count(name) > 1 else name for place, name in enumerate(names)]


def _policy(scripts: Sequence[str], *, live: bool) -> str:
    """A content security policy under which only these very scripts run and nothing is fetched, but news if `live`."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    news = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; {news}script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )


def _asset(name: str) -> str:
    return (files("thresher.apps.report") / name).read_text(encoding="utf-8")
