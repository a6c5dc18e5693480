"""Claims about the table: means and deviations over seeds, and rows that no other row beats."""

import pytest

from thresher.apps.sweep.rows import Row, Spread, pareto
from thresher.apps.sweep.table import short_error
from thresher.apps.train import Result


def result(accuracy: float, **changes: float | None) -> Result:
    values = {"bytes": 100, "zeros": 90, "macs": 50.0, **changes}
    return Result(
        accuracy_before=99.0,
        accuracy_after=accuracy,
        dense_bytes=1000,
        sparsity=0.9,
        entries=100,
        asked="sparsity=90%",
        steps=1,
        seconds=1.0,
        milliseconds_dense=1.0,
        milliseconds=1.0,
        timed_batch=1,
        **values,  # type: ignore[arg-type]
    )


def row(accuracy: float, **costs: float) -> Row:
    return Row.of("gmp", "sparsity=90%", {}, {0: result(accuracy, **costs)}, asked=1)


def test_the_deviation_is_that_of_a_sample_and_unknown_for_one_seed():
    assert Spread.of([90.0, 92.0, 94.0]) == Spread(92.0, 2.0)
    assert Spread.of([90.0]) == Spread(90.0, None)
    assert Spread.of([]) is None


def test_a_row_counts_the_seeds_that_are_done():
    found = Row.of("gmp", "sparsity=90%", {"lr": 0.1}, {0: result(90.0), 2: result(92.0)}, asked=3).to_dict()
    assert (found["seeds"], found["asked"]) == ([0, 2], 3)
    assert found["accuracy"] == {"mean": 91.0, "std": pytest.approx(2**0.5)}
    assert found["zeros"] == {"mean": 90.0, "std": 0.0}
    assert Row.of("gmp", "sparsity=90%", {}, {}, asked=3).to_dict()["accuracy"] is None
    assert Row.of("gmp", "sparsity=90%", {}, {0: result(1.0, macs=None)}, asked=1).to_dict()["macs"] is None


def test_a_row_is_on_the_front_unless_another_is_as_good_in_both_and_better_in_one():
    rows = [row(90.0, bytes=100), row(95.0, bytes=200), row(89.0, bytes=150), row(95.0, bytes=300), row(80.0, bytes=50)]
    assert pareto(rows, "bytes") == [4, 0, 1]


def test_more_zeros_are_better():
    assert pareto([row(90.0, zeros=10), row(89.0, zeros=20), row(88.0, zeros=15)], "zeros") == [1, 0]


def test_equal_rows_both_stay_and_rows_without_a_result_do_not_take_part():
    empty = Row.of("lats", "sparsity=90%", {}, {}, asked=1)
    assert pareto([row(90.0), empty, row(90.0)], "macs") == [0, 2]
    assert pareto([empty], "bytes") == []
    assert pareto([], "bytes") == []


def test_an_error_is_told_by_what_was_given():
    assert short_error("given: lr=9; expected: less; do: lower it") == "lr=9"
    assert short_error("OSError: no space\nleft") == "OSError: no space"
    assert short_error(None) == "unknown error"
