"""Milliseconds, from bench.json and result.json: of whole networks, and layer by layer where that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, table
from thresher.plots.formats import first, number, plain, text
from thresher.plots.outcome import outcome_of
from thresher.plots.reading import Record, Run

MOST_BARS = 60
MOST_CONDITIONS = 24
Row = tuple[str, float, float | None, float | None]
"""Name, milliseconds, lowest and highest."""
PROMISED = "multiply-adds promise"
_NAMES = ("name", "engine", "label", "network", "layer", "variant")


def times(run: Run, detail: Detail) -> Figure | None:
    """One bar for each way to run the network that was timed, and one for what its multiply-adds promise.

    A variant for each batch size, number of threads and precision of bench.json.
    """
    found: dict[str, list[Row]] = {}
    if own := _own(run):
        found["this run"] = own
    for row in _rows(run.more.get("bench.json", {}), ("rows", "results", "engines", "timings")):
        if (at := _time(row)) is not None:
            found.setdefault(_condition(row), []).append((_name(row), at, *_ends(row)))
    drawn = [(name, _times(rows[:MOST_BARS], detail)) for name, rows in found.items()][:MOST_CONDITIONS]
    if not drawn:
        return None
    return replace(drawn[0][1], variants=tuple(drawn) if len(drawn) > 1 else ())


def _times(rows: Sequence[Row], detail: Detail) -> Figure:
    lines = [(name, plain(at), plain(low), plain(high)) for name, at, low, high in rows]
    series = Series(label="milliseconds", values=tuple(rounded(at) for _, at, *_ in rows))
    names = [name for name, *_ in rows]
    promised = PROMISED in names
    caption = "Timed in turn, in the same minutes."
    caption += " The promise is the dense time times the share of multiply-adds that are left." * promised
    return replace(
        _bars("Milliseconds a pass", names, (series,), ["way", "ms", "lowest", "highest"], lines, detail),
        caption=caption,
    )


def _condition(row: Record) -> str:
    known = [(name, row.get(key)) for key, name in (("batch", "batch"), ("threads", "threads"), ("precision", ""))]
    parts = [f"{name} {text(value, 20)}".strip() for name, value in known if value is not None]
    return ", ".join(parts) or "bench"


def _ends(row: Record) -> tuple[float | None, float | None]:
    rounds = row.get("rounds")
    values = [1000 * at for each in rounds if (at := number(each)) is not None] if isinstance(rounds, list) else []
    return (min(values), max(values)) if values else (number(row.get("low")), number(row.get("high")))


def _own(run: Run) -> list[Row]:
    dense, now = number(run.result.get("milliseconds_dense")), number(run.result.get("milliseconds"))
    if dense is None or now is None or not run.pruned:
        return []
    outcome = outcome_of(run)
    rows: list[Row] = [("dense, measured", dense, None, None)]
    if outcome.macs is not None and outcome.total_macs:
        rows.append((PROMISED, dense * outcome.macs / outcome.total_macs, None, None))
    return [*rows, ("now, measured", now, None, None)]


def layer_times(run: Run, detail: Detail) -> Figure | None:
    """Milliseconds of each layer, dense and as it is now."""
    rows = [row for row in _rows(run.more.get("bench.json", {}), ("layers",)) if _time(row) is not None][:MOST_BARS]
    if not rows:
        return None
    dense = tuple(rounded(first(row.get("milliseconds_dense"), row.get("dense_milliseconds"))) for row in rows)
    now = tuple(rounded(_time(row)) for row in rows)
    names = [_name(row) for row in rows]
    lines = [(name, plain(old), plain(new)) for name, old, new in zip(names, dense, now, strict=True)]
    series = [Series(label="now", values=now, colour=0)]
    if any(value is not None for value in dense):
        series.insert(0, Series(label="dense", values=dense, style="ghost"))
    return _bars("Milliseconds by layer", names, series, ["layer", "ms dense", "ms"], lines, detail)


def _bars(
    title: str,
    names: Sequence[str],
    series: Sequence[Series],
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    detail: Detail,
) -> Figure:
    return Figure(
        title=title,
        kind="bars",
        x=Axis(label="", format="count"),
        y=Axis(label="milliseconds", low=0),
        across=tuple(float(place) for place in range(1, len(names) + 1)),
        names=tuple(names),
        series=tuple(series),
        table=table(head, lines, detail.rows),
    )


def _rows(record: Record, keys: Sequence[str]) -> list[Record]:
    for key in keys:
        found = record.get(key)
        if isinstance(found, list):
            return [row for row in found if isinstance(row, Mapping)]
    return []


def _name(row: Record) -> str:
    return text(" ".join(str(row[key]) for key in _NAMES if isinstance(row.get(key), str)) or "?", 60)


def _time(row: Record) -> float | None:
    seconds = first(row.get("seconds"), row.get("median_seconds"))
    return first(row.get("milliseconds"), row.get("ms"), None if seconds is None else 1000 * seconds)
