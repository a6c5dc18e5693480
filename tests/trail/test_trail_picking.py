"""Claims about picking: who wins, what a tie does, and what is said when nothing fits."""

import math

import pytest

from thresher.errors import BudgetError, InputError
from thresher.trail import Point, choose, front


def point(step: int, zeros: int, accuracy: float | None, **more: object) -> Point:
    """1,000 prunable of 1,010 parameters; a file of 100 bytes and 4 for each kept entry."""
    values: dict[str, object] = {
        "entries": 1000,
        "params": 1010 - zeros,
        "dense_params": 1010,
        "bytes": 100 + 4 * (1000 - zeros),
        "dense_bytes": 4100,
        "flops": 50.0 * (1000 - zeros),
        "dense_flops": 50_000.0,
        "reference": 92.6,
        "dense_accuracy": 92.6,
        **more,
    }
    return Point(step=step, zeros=zeros, accuracy=accuracy, **values)  # type: ignore[arg-type]


RUN = [point(1, 0, 92.5), point(2, 500, 92.7), point(3, 800, 91.6), point(4, 900, 90.0), point(5, 950, 85.0)]


def steps(points: list[Point]) -> list[int]:
    return [each.step for each in points]


def test_the_sparsest_within_the_drop_wins() -> None:
    assert choose(RUN, accuracy_drop=1.0).step == 3  # 92.6 - 91.6 is a little more than 1 in floating point
    assert choose(RUN, accuracy_drop=0.99).step == 2
    assert choose(RUN, accuracy_drop=100).step == 5
    assert choose(RUN, accuracy_drop=-0.05).step == 2


def test_the_most_accurate_within_the_budget_wins() -> None:
    assert choose(RUN, budget="bytes=1KB").step == 3
    assert choose(RUN, budget="sparsity=80%").step == 3
    assert choose(RUN, budget={"sparsity": 0.801}).step == 4
    assert choose(RUN, budget="params=111").step == 4
    assert choose(RUN, budget="flops=50%").step == 2
    assert choose(RUN, budget="flops=10%,bytes=400").step == 5


def test_with_both_the_sparsest_that_keeps_both_wins() -> None:
    assert choose(RUN, accuracy_drop=3.0, budget="bytes=1KB").step == 4
    with pytest.raises(BudgetError, match=r"within 1 points.*\n.*bytes down to 900"):
        choose(RUN, accuracy_drop=1.0, budget="bytes=500")


def test_limits_that_are_met_exactly_are_met() -> None:
    assert choose(RUN, budget="bytes=900").step == 3
    assert choose(RUN, budget="params=210").step == 3
    assert choose(RUN, budget="flops=10000").step == 3


def test_ties_go_to_the_sparser_then_to_the_later() -> None:
    assert choose([point(1, 900, 90.0), point(2, 800, 90.0)], budget="sparsity=50%").step == 1
    assert choose([point(1, 800, 90.0), point(2, 800, 90.0)], budget="sparsity=50%").step == 2
    assert choose([point(1, 800, 90.0), point(2, 800, 90.1), point(3, 800, 90.0)], accuracy_drop=9).step == 2
    assert choose([point(1, 800, 90.0), point(2, 800, 90.0)], accuracy_drop=9).step == 2


def test_a_drop_out_of_reach_says_what_is_reachable() -> None:
    with pytest.raises(BudgetError) as caught:
        choose(RUN[3:], accuracy_drop=1.0)
    assert "at least 2.6" in caught.value.expected
    assert "step 4" in caught.value.expected
    assert "90.00 %" in caught.value.expected


def test_a_budget_out_of_reach_says_what_is_reachable() -> None:
    with pytest.raises(BudgetError, match=r"sparsity up to 95\.0000%, bytes down to 300 \(each alone"):
        choose(RUN, budget="sparsity=99%,bytes=100")


def test_unknown_multiply_adds_keep_no_limit_on_them() -> None:
    blind = [point(1, 900, 90.0, flops=None, dense_flops=None)]
    with pytest.raises(BudgetError, match="no flops, whose number no point knows"):
        choose(blind, budget="flops=90%")
    assert choose([*blind, point(2, 100, 92.0)], budget="flops=90%").step == 2


def test_points_without_accuracy_are_picked_by_budget_only_when_another_has_one() -> None:
    nameless = point(1, 950, None)
    assert choose([nameless, point(2, 900, 50.0)], budget="sparsity=50%").step == 2
    assert choose([nameless, point(2, 900, 92.0)], accuracy_drop=1).step == 2
    with pytest.raises(InputError, match="without an accuracy"):
        choose([nameless], budget="sparsity=50%")
    with pytest.raises(InputError, match="without accuracies to compare"):
        choose([nameless], accuracy_drop=1)


def test_a_point_of_few_images_is_held_against_the_dense_network_on_these() -> None:
    lucky = point(1, 900, 93.0, images=100, reference=95.0)
    assert lucky.drop == 2.0
    assert lucky.estimate == pytest.approx(90.6)
    with pytest.raises(BudgetError):
        choose([lucky], accuracy_drop=1.0)
    assert choose([lucky, point(2, 800, 91.0)], budget="sparsity=50%").step == 2


@pytest.mark.parametrize(
    ("points", "asked"),
    [
        ([], {"accuracy_drop": 1.0}),
        (RUN, {}),
        (RUN, {"accuracy_drop": math.nan}),
        (RUN, {"accuracy_drop": math.inf}),
        (RUN, {"budget": "size=3"}),
        (RUN, {"budget": ""}),
    ],
)
def test_questions_without_an_answer_are_refused(points: list[Point], asked: dict[str, object]) -> None:
    with pytest.raises(InputError):
        choose(points, **asked)  # type: ignore[arg-type]


def test_the_front_leaves_out_what_another_point_beats() -> None:
    beaten = [point(6, 850, 89.0), point(7, 500, 92.0), point(8, 100, 92.7)]
    assert steps(front([*RUN, *beaten])) == [5, 4, 3, 2]
    assert steps(front(RUN[::-1], x="sparsity")) == [5, 4, 3, 2]
    assert front([]) == []


def test_equals_stay_on_the_front_together() -> None:
    assert steps(front([point(1, 500, 90.0), point(2, 500, 90.0), point(3, 500, 89.0)])) == [1, 2]


def test_the_front_of_any_two_numbers() -> None:
    first, second = point(1, 500, None, metrics={"loss": 0.5}), point(2, 900, None, metrics={"loss": 0.4})
    assert steps(front([first, second, RUN[0]], x="flops", y="-loss")) == [2]
    assert steps(front(RUN, x="-bytes", y="accuracy")) == [1, 2]
    with pytest.raises(InputError, match="which no point has"):
        front(RUN, y="loss")


def test_a_point_is_rebuilt_from_its_record_and_refuses_others() -> None:
    record = RUN[2].to_dict()
    assert Point.from_dict(record).to_dict() == record
    for change in ({"version": 2}, {"surprise": 1}, {"zeros": 1001}, {"zeros": -1}, {"zeros": 1.0}, {"zeros": True}):
        with pytest.raises(InputError):
            Point.from_dict({**record, **change})
    for change in ({"metrics": [1]}, {"metrics": {"a": "b"}}, {"accuracy": "x"}, {"entries": 0, "zeros": 0}):
        with pytest.raises(InputError):
            Point.from_dict({**record, **change})
    with pytest.raises(InputError):
        Point.from_dict({"version": 1})
