"""bench.json read as an outcome: how long the dense and the pruned network took, and under which condition."""

from __future__ import annotations

from collections.abc import Mapping

from thresher.plots.formats import count, number, text


def benched(record: Mapping[str, object]) -> dict[str, object]:
    """bench.json as a result: the two networks, and the fastest engine of each under the first condition timed."""
    rows, variants = record.get("rows"), record.get("variants")
    known = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    found: dict[str, object] = {"timed": condition_of(known[0]) if known else ""}
    kinds = variants if isinstance(variants, Mapping) else {}
    for name, ending in (("dense", "_dense"), ("pruned", "")):
        same = [
            at
            for row in known
            if row.get("variant") == name
            and row.get("agrees") is not False
            and all(row.get(key) == known[0].get(key) for key in ("batch", "threads", "precision"))
            and (at := number(row.get("milliseconds"))) is not None
        ]
        kind = kinds.get(name)
        kind = kind if isinstance(kind, Mapping) else {}
        found[f"milliseconds{ending}"] = min(same, default=None)
        found["dense_bytes" if ending else "bytes"] = kind.get("bytes")
        zeros, entries = number(kind.get("zeros")), number(kind.get("entries"))
        found["sparsity"] = zeros / entries if zeros is not None and entries else None
        found["accuracy_before" if ending else "accuracy_after"] = kind.get("accuracy")
    return found


def condition_of(row: Mapping[str, object]) -> str:
    """Under which condition a row of bench.json was timed.

    >>> condition_of({"batch": 1, "threads": 2, "precision": "float32"})
    'batch 1, 2 threads, float32'
    """
    batch, threads, precision = number(row.get("batch")), number(row.get("threads")), row.get("precision")
    parts = [] if batch is None else [f"batch {count(batch)}"]
    parts += [] if threads is None else [f"{count(threads)} thread{'s' * (threads != 1)}"]
    return ", ".join(parts if precision is None else [*parts, text(precision, 20)]) or "bench"
