"""A real language model: 260 thousand parameters, trained on TinyStories. Needs the shared data folder."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import thresher
from thresher.apps.data.roots import find

transformers = pytest.importorskip("transformers")
FOLDER, TEXT = find("weights/stories260k"), find("lm/tinystories_sample.txt")
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(FOLDER is None or TEXT is None, reason="needs weights/stories260k and lm/ of the shared data"),
]


@pytest.fixture(scope="module")
def dense() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def stories() -> list[Tensor]:
    assert TEXT is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    parts = TEXT.read_text(encoding="utf-8").split("<|endoftext|>")
    return [tokenizer(part.strip(), return_tensors="pt").input_ids for part in parts if part.strip()]


def perplexity(model: Any, stories: list[Tensor]) -> float:
    with torch.no_grad():
        losses = [(float(model(input_ids=ids, labels=ids).loss), ids.shape[1] - 1) for ids in stories]
    return math.exp(sum(loss * count for loss, count in losses) / sum(count for _, count in losses))


def pruned(dense: Any, method: str, budget: str | None, groups: str, stories: list[Tensor]) -> tuple[Any, Any]:
    model = copy.deepcopy(dense)
    batches = [{"input_ids": ids} for ids in stories]
    report = thresher.prune_oneshot(model, method, budget, groups=groups, calibration=batches)
    assert report.zeros == int(report.entries * (0.3 if budget == "sparsity=30%" else 0.5))
    return model, report


@pytest.mark.parametrize(
    ("budget", "groups"), [("sparsity=30%", "weight"), ("sparsity=50%", "weight"), (None, "2:4")], ids=str
)
def test_calibration_on_three_stories_helps_on_two_others(
    dense: Any, stories: list[Tensor], budget: str | None, groups: str
) -> None:
    seen, held = stories[:3], stories[3:]
    found = {name: pruned(dense, name, budget, groups, seen) for name in ("magnitude", "wanda", "sparsegpt")}
    after = {name: perplexity(model, held) for name, (model, _) in found.items()}
    before = perplexity(dense, held)
    assert before < after["wanda"] < after["magnitude"]
    assert before < after["sparsegpt"] < after["magnitude"]
    # 927 tokens are few for SparseGPT. At 2:4, where most is to be made up for, it is ahead all the same.
    if groups == "2:4":
        assert after["sparsegpt"] < 0.7 * after["wanda"]
    errors = {name: sum(each.after for each in report.errors) for name, (_, report) in found.items()}
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]


def test_the_dense_network_is_the_one_that_was_published(dense: Any, stories: list[Tensor]) -> None:
    losses = [math.log(perplexity(dense, [ids])) for ids in stories]
    assert sum(losses) / 5 == pytest.approx(1.266, abs=0.05)


def test_the_pruned_model_saves_loads_and_writes_stories(dense: Any, stories: list[Tensor], tmp_path: Any) -> None:
    model, report = pruned(dense, "sparsegpt", "sparsity=30%", "weight", stories[:3])
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert [name for name, _ in report.budget.skipped] == ["model.embed_tokens.weight"]
    words = again.generate(stories[0][:, :8], max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert words.shape == (1, 28)
