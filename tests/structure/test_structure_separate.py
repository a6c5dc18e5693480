"""torch's MultiheadAttention taken apart: the same function, heads that can go, a plan that knows, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.errors import InputError
from thresher.structure import (
    SeparateAttention,
    ShrinkPlan,
    coupled_groups,
    load_folder,
    proven,
    save_folder,
    separate_attention,
)

HIDDEN = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
PADDING = torch.tensor([[False] * 5, [False, False, False, True, True]] + [[False] * 5] * 3)
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "padding": {"key_padding_mask": PADDING},
    "causal": {"attn_mask": HIDDEN, "is_causal": True},
    "added": {"attn_mask": torch.linspace(-2, 2, 25).reshape(5, 5), "need_weights": False},
    "per head": {"attn_mask": HIDDEN.repeat(20, 1, 1)},
    "both": {"attn_mask": HIDDEN, "key_padding_mask": PADDING, "need_weights": False},
    "all heads' weights": {"average_attn_weights": False},
}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder().eval()


TOKENS = torch.randn(8, 6, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("given", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("first", [True, False], ids=["batch first", "batch second"])
@pytest.mark.parametrize(
    "widths", [{}, {"kdim": 10, "vdim": 7}, {"bias": False}], ids=["packed", "own widths", "plain"]
)
def test_it_computes_what_torch_computes(given: dict[str, Any], first: bool, widths: dict[str, Any]) -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(12, 4, batch_first=first, **widths).eval()
    apart = SeparateAttention(whole)
    inputs = [torch.randn(5, 5, width) for width in (12, widths.get("kdim", 12), widths.get("vdim", 12))]
    wanted, found = whole(*inputs, **given), apart(*inputs, **given)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


def test_a_single_sequence_needs_no_batch() -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(12, 4).eval()
    rows = torch.randn(5, 12)
    torch.testing.assert_close(SeparateAttention(whole)(rows, rows, rows), whole(rows, rows, rows))


def test_gradients_and_dropout_are_there_in_training() -> None:
    torch.manual_seed(0)
    apart = SeparateAttention(nn.MultiheadAttention(12, 4, dropout=0.5)).train()
    rows = torch.randn(5, 2, 12)
    one, other = apart(rows, rows, rows)[0], apart(rows, rows, rows, need_weights=False)[0]
    assert not torch.allclose(one, other)
    one.sum().backward()
    assert all(parameter.grad is not None for parameter in apart.parameters())


def test_heads_come_apart_and_cutting_them_is_silencing() -> None:
    model = separate_attention(encoder())
    good = proven(model, TOKENS, coupled_groups(model, TOKENS)[0])[0]
    heads = [group for group in good if group.kind == "heads"]
    assert [group.units for group in heads] == [4, 4]
    apart = separate_attention(Encoder().eval()).encoder.layers[0].self_attn
    assert isinstance(apart, SeparateAttention)


def test_shrinking_takes_heads_of_torch_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = encoder()
    before = model(TOKENS)
    result = thresher.shrink_plan(model, "ispasp", keep={"*q_proj": 3, "*linear1": 12}, calibration=[TOKENS])
    attention = result.model.encoder.layers[1].self_attn
    assert (attention.num_heads, attention.q_proj.out_features, attention.out_proj.in_features) == (3, 12, 12)
    assert type(model.encoder.layers[1].self_attn) is nn.MultiheadAttention
    assert torch.equal(model(TOKENS), before)
    padding = torch.zeros(8, 6, dtype=torch.bool)
    padding[:, 4:] = True
    with torch.no_grad():  # the encoder would take its nested path here
        torch.testing.assert_close(result.model(TOKENS, padding)[:, 0].isfinite(), torch.ones(8, dtype=torch.bool))
    result.model.train()(TOKENS).sum().backward()
    save_folder(result.model, result.plan, tmp_path)
    assert torch.equal(load_folder(tmp_path, encoder())(TOKENS), result.model.eval()(TOKENS))


def test_attention_whose_heads_all_stay_is_torchs_own_again() -> None:
    model = encoder()
    result = thresher.shrink_plan(
        model, "ispasp", keep={"encoder.layers.0.self_attn.q_proj": 2}, calibration=[TOKENS], rules=["exclude:*linear1"]
    )
    first, second = (layer.self_attn for layer in result.model.encoder.layers)
    assert (type(first), type(second)) == (SeparateAttention, nn.MultiheadAttention)
    assert not result.model.encoder.use_nested_tensor
    again = ShrinkPlan.from_json(result.plan.to_json()).apply(encoder())
    again.load_state_dict(result.model.state_dict())
    assert torch.equal(again(TOKENS), result.model(TOKENS))
    ffn = thresher.shrink(model, "ispasp", keep={"*linear1": 12, "*q_proj": 4}, calibration=[TOKENS])
    assert all(type(layer.self_attn) is nn.MultiheadAttention for layer in ffn.encoder.layers)
    assert ffn.encoder.use_nested_tensor


def test_a_plan_that_does_not_fit_changes_nothing() -> None:
    plan = thresher.shrink_plan(encoder(), "l2", keep={"*q_proj": 3}, calibration=[TOKENS]).plan
    other = encoder()
    other.head = nn.Linear(16, 3)
    other.encoder.layers[1].linear1 = nn.Linear(16, 25)
    with pytest.raises(InputError, match="25 wide"):
        plan.cut(other)
    assert type(other.encoder.layers[0].self_attn) is nn.MultiheadAttention


def test_a_mask_per_head_is_refused_once_heads_are_gone() -> None:
    small = thresher.shrink(encoder(), "l2", keep={"*q_proj": 3}, calibration=[TOKENS])
    rows = TOKENS[:, :5]
    with pytest.raises(InputError, match="mask for 32 heads"):
        small.encoder.layers[0].self_attn(rows, rows, rows, attn_mask=HIDDEN.repeat(32, 1, 1))


def test_extra_keys_are_left_whole_with_the_reason() -> None:
    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(16, 4, add_zero_attn=True), nn.Linear(16, 2)
            self.one, self.two = nn.Linear(16, 8), nn.Linear(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.two(self.one(x).relu()) + self.attention(x, x, x)[0])

    result = thresher.shrink_plan(Extra().eval(), "ispasp", keep={"one": 4}, calibration=[TOKENS])
    assert any("attention heads" in reason for _, reason in result.report.left_whole)
    assert type(result.model.attention) is nn.MultiheadAttention
    with pytest.raises(InputError, match="extra keys"):
        SeparateAttention(nn.MultiheadAttention(16, 4, add_bias_kv=True))


def test_a_layer_under_two_names_stays_one() -> None:
    layer = nn.MultiheadAttention(8, 2)
    apart = separate_attention(nn.ModuleDict({"a": layer, "b": layer}))
    assert apart["a"] is apart["b"]
