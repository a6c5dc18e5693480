"""Every spelling of a budget, its way back to text, and every refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.budget.language import Amount, Budget
from thresher.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("sparsity=90%", Budget(sparsity=0.9)),
        ("sparsity=0.9", Budget(sparsity=0.9)),
        ("sparsity=.5", Budget(sparsity=0.5)),
        ("sparsity=0", Budget(sparsity=0.0)),
        ("sparsity=100 %", Budget(sparsity=1.0)),
        ("params=10%", Budget(params=Amount(share=0.1))),
        ("params=0.1", Budget(params=Amount(share=0.1))),
        ("latency=60%", Budget(latency=Amount(share=0.6))),
        ("latency=5ms", Budget(latency=Amount(absolute=0.005))),
        ("params=25k", Budget(params=Amount(absolute=25e3))),
        ("params=1.5M", Budget(params=Amount(absolute=1.5e6))),
        ("params=5000", Budget(params=Amount(absolute=5000))),
        ("flops=25%", Budget(flops=Amount(share=0.25))),
        ("flops=40MMACs", Budget(flops=Amount(absolute=40e6))),
        ("flops=2G", Budget(flops=Amount(absolute=2e9))),
        ("flops=1e6", Budget(flops=Amount(absolute=1e6))),
        ("bytes=2MB", Budget(bytes=Amount(absolute=2e6))),
        ("bytes=1KiB", Budget(bytes=Amount(absolute=1024))),
        ("bytes=1MiB", Budget(bytes=Amount(absolute=2**20))),
        ("bytes=20%", Budget(bytes=Amount(share=0.2))),
        (" sparsity = 90% , flops = 25% ", Budget(sparsity=0.9, flops=Amount(share=0.25))),
    ],
)
def test_every_spelling_is_read(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


def test_a_mapping_and_a_budget_are_budgets_too() -> None:
    assert Budget.parse({"sparsity": 0.9, "bytes": 2_000_000}) == Budget.parse("sparsity=90%,bytes=2MB")
    assert Budget.parse({"flops": "25%", "params": 1e-05}) == Budget.parse("flops=25%,params=0.001%")
    assert Budget.parse(budget := Budget(sparsity=0.5)) is budget


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ("", "an empty budget"),
        ({}, "an empty budget"),
        ("sparsity", "NAME=VALUE"),
        ("90%", "NAME=VALUE"),
        ("sparsity=", "correct the number"),
        ("sparsity=lots", "correct the number"),
        ("sparsity=-5%", "correct the number"),
        ("sparsity=nan", "correct the number"),
        ("sparsity=90k", "correct the number"),
        ("sparsity=90", "from 0% to 100%"),
        ("sparsity=100.1%", "from 0% to 100%"),
        ("params=120%", "from 0% to 100%"),
        ("params=2MB", "correct the number"),
        ("params=2MMACs", "correct the number"),
        ("bytes=2MMACs", "correct the number"),
        ("flops=2MB", "correct the number"),
        ("flops=3parsecs", "correct the number"),
        ("flops=1e999", "finite number"),
        ("speed=2", "use one of these names"),
        ("latency=5", "a time with its unit"),
        ("latency=5MB", "correct the number"),
        ("latency=120%", "from 0% to 100%"),
        ("sparsity=90%,sparsity=80%", "sparsity twice"),
        ({"sparsity": None}, "correct the number"),
        ({"sparsity": True}, "correct the number"),
        (0.9, "a budget of type float"),
        (["sparsity=90%"], "a budget of type list"),
    ],
)
def test_every_mistake_gets_its_own_answer(given_: object, said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        Budget.parse(given_)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [Amount(share=-0.1), Amount(share=float("nan")), Amount(absolute=float("inf"))])
def test_amounts_are_checked_however_the_budget_is_made(amount: Amount) -> None:
    with pytest.raises(BudgetError):
        Budget(flops=amount)


@given(share=st.integers(0, 10_000), absolute=st.integers(0, 10**12), size=st.integers(0, 10**9))
def test_the_text_of_a_budget_reads_back_to_it(share: int, absolute: int, size: int) -> None:
    budget = Budget(
        sparsity=share / 100 / 100,
        params=Amount(share=share / 100 / 100),
        flops=Amount(absolute=float(absolute)),
        bytes=Amount(absolute=float(size)),
    )
    assert Budget.parse(str(budget)) == budget


def test_a_share_of_29_percent_of_100_is_29() -> None:
    assert Amount(share=0.29).limit(100) == 29
    assert Amount(absolute=12.0).limit(100) == 12
