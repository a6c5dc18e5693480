"""Milliseconds, from bench.json and result.json: of whole networks, and layer by layer where that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, table
from thresher.plots.formats import UNKNOWN, count, first, number, share, short, text
from thresher.plots.outcome import outcome_of
from thresher.plots.reading import Record, Run
from thresher.plots.timing import condition_of

MOST_BARS = 60
MOST_CONDITIONS = 24
Row = tuple[str, float, float | None, float | None]
"""Name, milliseconds, lowest and highest."""
PROMISED = "multiply-adds promise"
_NAMES = ("name", "engine", "label", "network", "layer", "variant")


def times(run: Run, detail: Detail) -> Figure | None:
    """One bar for each way to run the network that was timed, and one for what its multiply-adds promise.

    A variant for each batch size, number of threads and precision of bench.json, and for the run's own measurement.
    """
    found: dict[str, list[Row]] = {}
    rows = _rows(run.more.get("bench.json", {}), ("rows",))
    for row in sorted(rows, key=lambda row: row.get("variant") != "dense"):
        if (at := _time(row)) is not None and row.get("agrees") is not False:
            found.setdefault(condition_of(row), []).append((_name(row), at, *_ends(row)))
    order = list(dict.fromkeys(condition_of(row) for row in rows))
    share = _share_left(run)
    for condition, timed in found.items():
        dense = [row for row in timed if row[0].endswith(" dense")]
        if dense and share is not None and len(timed) > len(dense):
            best = min(at for _, at, *_ in dense)
            found[condition] = [*dense, (PROMISED, best * share, None, None), *timed[len(dense) :]]
    ways = {name: found[name] for name in order if name in found} | _own(run, share) | _limited(run)
    drawn = [(name, _times(rows[:MOST_BARS], detail)) for name, rows in ways.items()][:MOST_CONDITIONS]
    if not drawn:
        return None
    return replace(drawn[0][1], variants=tuple(drawn) if len(drawn) > 1 else ())


def _times(rows: Sequence[Row], detail: Detail) -> Figure:
    lines = [(name, short(at), short(low), short(high)) for name, at, low, high in rows]
    series = Series(label="milliseconds", values=tuple(rounded(at) for _, at, *_ in rows))
    names = [name for name, *_ in rows]
    promised = PROMISED in names
    caption = "Timed in turn, within the same minute."
    caption += " The promise is the best dense time times the share of multiply-adds that are left." * promised
    return replace(
        _bars("Milliseconds a pass", names, (series,), ["way", "ms", "lowest", "highest"], lines, detail),
        caption=caption,
    )


def _ends(row: Record) -> tuple[float | None, float | None]:
    rounds = row.get("rounds")
    values = [1000 * at for each in rounds if (at := number(each)) is not None] if isinstance(rounds, list) else []
    return (min(values), max(values)) if values else (number(row.get("low")), number(row.get("high")))


def _share_left(run: Run) -> float | None:
    """Multiply-adds now over those of the dense network."""
    outcome = outcome_of(run)
    return outcome.macs / outcome.total_macs if outcome.macs is not None and outcome.total_macs else None


def _own(run: Run, share: float | None) -> dict[str, list[Row]]:
    """What the run itself measured in torch, at its end."""
    dense, now = number(run.result.get("milliseconds_dense")), number(run.result.get("milliseconds"))
    if dense is None or now is None or not run.pruned:
        return {}
    rows: list[Row] = [("dense, measured", dense, None, None)]
    rows += [] if share is None else [(PROMISED, dense * share, None, None)]
    images = number(run.result.get("timed_batch"))
    name = "at the end of the run" if images is None else f"torch, {count(images)} images"
    return {name: [*rows, ("now, measured", now, None, None)]}


def _limited(run: Run) -> dict[str, list[Row]]:
    """What a run with a latency budget predicted from its table of layers, and measured."""
    record = run.shrink.get("latency") or run.report.get("latency")
    if not isinstance(record, Mapping):
        return {}
    names = {"dense": "dense", "limit": "limit asked", "predicted": "predicted", "got": "now, measured"}
    names["measured"] = "now, measured"
    rows: list[Row] = [
        (name, 1000 * at, None, None) for key, name in names.items() if (at := number(record.get(key))) is not None
    ]
    return {"the budget's own measurement": rows} if rows else {}


def layer_times(run: Run, detail: Detail) -> Figure | None:
    """Milliseconds of each layer with weights, dense and as it is now; a variant for each condition of bench.json."""
    drawn = []
    for row in _rows(run.more.get("bench.json", {}), ("rows",)):
        layers = [layer for layer in _rows(row, ("layers",)) if _time(layer) is not None]
        if layers and row.get("variant") != "dense":
            drawn.append((condition_of(row), _layer_times(layers, row, detail)))
    drawn = drawn[:MOST_CONDITIONS]
    return replace(drawn[0][1], variants=tuple(drawn) if len(drawn) > 1 else ()) if drawn else None


def _layer_times(layers: Sequence[Record], row: Record, detail: Detail) -> Figure:
    timed = [layer for layer in layers if number(layer.get("milliseconds_dense")) is not None] or list(layers)
    shown = timed[:MOST_BARS]
    dense = tuple(rounded(number(layer.get("milliseconds_dense"))) for layer in shown)
    series = [Series(label="now", values=tuple(rounded(_time(layer)) for layer in shown), colour=0)]
    if any(value is not None for value in dense):
        series.insert(0, Series(label="dense, in torch", values=dense, style="ghost"))
    lines = [_layer_line(layer) for layer in layers]
    head = ["layer", "runs", "zeros", "ms dense", "ms", "faster"]
    names = [text(layer.get("name"), 60) for layer in shown]
    how = text(row.get("note"), 60) if row.get("note") else ""
    notes = [f"Each layer by itself in the {text(row.get('engine'), 20)} engine{', ' * bool(how)}{how}."]
    if len(shown) < len(layers):
        notes.append(f"{len(shown)} of {len(layers)} steps are drawn; the table has all.")
    return replace(_bars("Milliseconds by layer", names, series, head, lines, detail), caption=" ".join(notes))


def _layer_line(layer: Record) -> tuple[str, ...]:
    dense, now, zeros = number(layer.get("milliseconds_dense")), _time(layer), number(layer.get("zeros"))
    faster = f"{dense / now:.1f}×" if dense and now else UNKNOWN
    return text(layer.get("name"), 60), text(layer.get("runs"), 20), share(zeros), short(dense), short(now), faster


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
