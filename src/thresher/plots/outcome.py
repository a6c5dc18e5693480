"""The verdict on a run: what was asked, what was got, at what loss, as numbers and as one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from thresher.budget.language import Budget
from thresher.errors import BudgetError
from thresher.plots.formats import UNKNOWN, count, first, flat, number, percent, share, size, text
from thresher.plots.reading import Run
from thresher.plots.timing import benched

_NOT_SETTINGS = (
    "seed",
    "command",
    "version",
    "thresher",
    "torch",
    "python",
    "threads",
    "checkpoint_every",
    "data_root",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Numbers of one run, None where the folder does not tell. Accuracies in percent, sparsity in [0, 1].

    `macs`: multiply-adds of one sample. `settings`: what makes two runs the same but for their seed. `timed`: under
    which condition the milliseconds were taken; `zeros_timed`: by an engine that can make use of zeros.
    """

    name: str
    method: str
    asked: str
    got: str
    met: bool | None
    before: float | None
    after: float | None
    sparsity: float | None
    bytes: float | None
    dense_bytes: float | None
    seconds: float | None
    milliseconds_dense: float | None
    milliseconds: float | None
    finished: bool
    pruned: bool = True
    macs: float | None = None
    total_macs: float | None = None
    timed: str = ""
    zeros_timed: bool = False
    seed: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def smaller(self) -> str:
        """How many times smaller the file is, e.g. "8.5× smaller"."""
        return _times(self.dense_bytes, self.bytes, "smaller", "larger")

    @property
    def ratio(self) -> str:
        """Dense bytes over bytes, e.g. "8.5×"."""
        if not self.pruned or not self.dense_bytes or not self.bytes:
            return UNKNOWN
        return f"{self.dense_bytes / self.bytes:.3g}×"

    @property
    def faster(self) -> str:
        """How many times faster one pass is; "" within 10 %, which is what timing on a busy machine can tell apart."""
        return _times(self.milliseconds_dense, self.milliseconds, "faster", "slower", least=1.1)

    @property
    def change(self) -> str:
        """Accuracy points gained or lost, e.g. "−0.71 points"."""
        if self.before is None or self.after is None:
            return ""
        moved = f"{self.after - self.before:+.2f}".replace("-", "−")
        return f"{moved} points"

    @property
    def verdict(self) -> str:
        """One sentence; it says only what is known."""
        asked = "No budget" if self.asked in (UNKNOWN, "none") else f"Asked for {self.asked}"
        parts = [f"{asked}, got {share(self.sparsity)} zeros" if self.sparsity is not None else asked]
        if self.sparsity is None and self.macs is not None and self.total_macs:
            parts = [f"{asked}, got {share(self.macs / self.total_macs)} of the multiply-adds"]
        if self.method == "bench":
            parts = ["Timed, not trained" + ("" if self.sparsity is None else f", with {share(self.sparsity)} zeros")]
        if not self.pruned:
            parts = ["Trained without pruning"]
        if self.before is not None and self.after is not None:
            parts.append(f"accuracy {percent(self.before)} before and {percent(self.after)} after ({self.change})")
        elif self.after is not None:
            parts.append(f"accuracy {percent(self.after)}")
        if self.bytes is not None:
            dense = f" instead of {size(self.dense_bytes)}, {self.smaller}" if self.smaller else ""
            parts.append(f"{size(self.bytes)}{dense}")
        where = f" ({self.timed})" if self.timed else ""
        if self.milliseconds is not None and self.faster:
            parts.append(
                f"{self.milliseconds:.3g} ms a pass instead of {self.milliseconds_dense:.3g}{where}, {self.faster}"
            )
        elif self.milliseconds is not None and self.milliseconds_dense is not None and self.pruned:
            parts.append(f"{self.milliseconds:.3g} ms a pass{where}, as long as the dense network")
        return "; ".join(parts) + "."


def outcome_of(run: Run) -> Outcome:
    """What `run` came to; for a run that has not ended, where it stands."""
    result, report = run.result, run.report
    last_accuracy = first(*(row.get("accuracy") for row in reversed(run.epochs)))
    last_sparsity = first(*(row.get("sparsity") for row in (*reversed(run.epochs), *reversed(run.steps))))
    asked = report.get("asked") or run.shrink.get("asked") or result.get("asked") or run.config.get("budget")
    got = report.get("got") or result.get("got")
    bench = benched(run.more.get("bench.json", {}))
    images = number(result.get("timed_batch"))
    timing: Mapping[str, object] = {**result, "timed": "torch" if images is None else f"torch, {count(images)} images"}
    if number(bench["milliseconds"]) is not None or number(bench["milliseconds_dense"]) is not None:
        timing = bench
    if run.more.get("bench.json") and not (result or report or run.shrink):
        result = bench
    return Outcome(
        name=run.name,
        method=run.method,
        asked=text(asked),
        got=text(got),
        met=_met(asked, got, run),
        before=number(result.get("accuracy_before")),
        after=first(result.get("accuracy_after"), last_accuracy),
        sparsity=None if run.shrink else first(report.get("sparsity"), result.get("sparsity"), last_sparsity),
        bytes=first(result.get("bytes"), report.get("bytes"), run.shrink.get("bytes")),
        dense_bytes=first(result.get("dense_bytes"), report.get("dense_bytes"), run.shrink.get("total_bytes")),
        seconds=number(result.get("seconds")),
        milliseconds_dense=number(timing.get("milliseconds_dense")),
        milliseconds=first(timing.get("milliseconds"), None if run.pruned else timing.get("milliseconds_dense")),
        timed=text(timing["timed"]) if number(timing.get("milliseconds_dense")) is not None else "",
        zeros_timed=timing is bench,
        finished=bool(result or report or run.shrink),
        pruned=run.pruned,
        macs=first(run.shrink.get("macs"), result.get("macs"), report.get("macs")),
        total_macs=first(run.shrink.get("total_macs"), result.get("total_macs"), report.get("total_macs")),
        seed=text(run.config.get("seed")),
        settings=tuple(sorted((key, value) for key, value in flat(run.config).items() if key not in _NOT_SETTINGS)),
    )


def _met(asked: object, got: object, run: Run) -> bool | None:
    """Whether every limit that can be checked holds; None when none can."""
    if not isinstance(asked, str) or not isinstance(got, Mapping):
        return None
    try:
        budget = Budget.parse(asked)
    except BudgetError:
        return None
    checks = []
    entries, sparsity = number(run.report.get("entries")), number(got.get("sparsity"))
    if budget.sparsity is not None and sparsity is not None:
        checks.append(abs(sparsity - budget.sparsity) <= (1 + 1e-6) / (entries or 1e4))
    wholes = {"params": "total_params", "flops": "total_macs", "bytes": ""}
    for name, whole_name in wholes.items():
        amount, value, whole = (
            getattr(budget, name),
            number(got.get(name)),
            first(run.report.get(whole_name), run.shrink.get(whole_name)),
        )
        # A share of the dense file's bytes counts its header, whose size the report does not tell.
        if amount is None or value is None or (amount.share is not None and whole is None):
            continue
        checks.append(value <= amount.limit(whole or 0.0) + 1e-6)
    return all(checks) if checks else None


def _times(before: float | None, after: float | None, less: str, more: str, least: float = 1.05) -> str:
    if before is None or after is None or before <= 0 or after <= 0 or 1 / least < before / after < least:
        return ""
    return f"{before / after:.3g}× {less}" if before >= after else f"{after / before:.3g}× {more}"
