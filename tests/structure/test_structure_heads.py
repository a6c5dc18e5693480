"""Attention heads are units: found, proven, cut with their numbers; what cannot be proven stays whole and says why."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from thresher.structure import CoupledGroup, ShrinkPlan, coupled_groups, proven, silenced
from thresher.structure.trying import cut_for_a_trial

TOKENS = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """Separate projections; fewer key/value heads when `key_heads` is below `heads`."""

    def __init__(self, width: int = 12, heads: int = 4, key_heads: int = 4, head_dim: int = 3) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, head_dim
        self.num_key_value_groups = heads // key_heads
        self.q_proj, self.o_proj = nn.Linear(width, heads * head_dim), nn.Linear(heads * head_dim, width)
        self.k_proj, self.v_proj = (nn.Linear(width, key_heads * head_dim) for _ in range(2))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.parts(x))
        k, v = (part.repeat_interleave(self.num_key_value_groups, 1) for part in (k, v))
        y = functional.scaled_dot_product_attention(q * 3, k * 3, v)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], self.num_heads * self.head_dim))


class Fused(Attention):
    """One layer for queries, keys and values, one after the other (`by_head` False) or head by head."""

    def __init__(self, by_head: bool) -> None:
        super().__init__()
        self.by_head, self.split_size = by_head, 12
        self.qkv = nn.Linear(12, 36)
        del self.q_proj, self.k_proj, self.v_proj

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.by_head:
            q, k, v = self.qkv(x).unflatten(-1, (self.num_heads, 3 * self.head_dim)).chunk(3, -1)
            return q.flatten(2), k.flatten(2), v.flatten(2)
        return self.qkv(x).split(self.split_size, -1)


class Biased(Attention):
    """A learned bias per head, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.parts(x))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.table.T[:, None, :])
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Shuffled(Attention):
    """Heads that are mixed before the output projection: no head can be cut."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.parts(x))
        y = functional.scaled_dot_product_attention(q, k, v).flip(1)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.head = attention, nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.attention(x))


KINDS: dict[str, Any] = {
    "separate": Attention,
    "grouped": lambda: Attention(key_heads=2),
    "one key head": lambda: Attention(key_heads=1),
    "wide heads": lambda: Attention(head_dim=5),
    "fused blocks": lambda: Fused(False),
    "fused by head": lambda: Fused(True),
    "bias per head": Biased,
}


def heads_of(kind: str, seed: int = 0) -> tuple[nn.Module, CoupledGroup]:
    torch.manual_seed(seed)
    model = Layer(KINDS[kind]()).eval()
    groups, _ = coupled_groups(model, TOKENS)
    (group,) = (each for each in groups if each.kind == "heads")
    return model, group


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_heads_equals_silencing_them(kind: str) -> None:
    model, group = heads_of(kind)
    keep = [0, 2] if group.units == 4 else [1]
    with torch.no_grad(), silenced(model, group, keep):
        masked = model(TOKENS)
    small = ShrinkPlan(model="Layer", groups=(group.plan(keep),)).apply(model)
    assert torch.allclose(small(TOKENS), masked, atol=1e-5)
    assert not torch.allclose(model(TOKENS), masked, atol=1e-3)
    assert small.attention.o_proj.in_features == len(keep) * len(group.readers[0].index[0])
    assert small.attention.num_heads == model.attention.num_heads * len(keep) // group.units
    small(TOKENS).sum().backward()
    assert all(parameter.grad is not None for parameter in small.attention.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_every_head_is_bit_for_bit_the_network(kind: str) -> None:
    model, group = heads_of(kind)
    whole = ShrinkPlan(model="Layer", groups=(group.plan(range(group.units)),)).apply(model)
    assert torch.equal(whole(TOKENS), model(TOKENS))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_goes_through_json_and_onto_a_fresh_network(kind: str) -> None:
    model, group = heads_of(kind)
    plan = ShrinkPlan(model="Layer", groups=(group.plan([1]),))
    assert ShrinkPlan.from_json(plan.to_json()) == plan
    small, fresh = plan.apply(model), Layer(KINDS[kind]())
    again = ShrinkPlan.from_json(plan.to_json()).apply(fresh)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again.eval()(TOKENS), small(TOKENS))


def test_grouped_queries_go_with_their_key_head_and_a_single_key_head_stays() -> None:
    model, group = heads_of("grouped")
    assert group.units == 2
    small = ShrinkPlan(model="Layer", groups=(group.plan([1]),)).apply(model).attention
    assert (small.q_proj.out_features, small.k_proj.out_features, small.num_key_value_groups) == (6, 3, 2)
    model, group = heads_of("one key head")
    small = ShrinkPlan(model="Layer", groups=(group.plan([1, 3]),)).apply(model).attention
    assert (small.q_proj.out_features, small.k_proj.out_features, small.num_key_value_groups) == (6, 3, 2)


def test_a_layout_is_told_by_trial() -> None:
    blocks, by_head = heads_of("fused blocks")[1], heads_of("fused by head")[1]
    assert blocks.members[0].index[1] == (3, 4, 5, 15, 16, 17, 27, 28, 29)
    assert by_head.members[0].index[1] == tuple(range(9, 18))


def test_mixed_heads_stay_whole_with_the_reason() -> None:
    model = Layer(Shuffled()).eval()
    groups, left = coupled_groups(model, TOKENS)
    assert not [group for group in groups if group.kind == "heads"]
    reasons = {each.name: each.reason for each in left}
    assert "reads other values after the cut" in reasons["attention.q_proj"]


def test_attention_of_torch_is_left_whole_with_what_to_do() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    _, left = coupled_groups(Layer(Plain()).eval(), TOKENS)
    assert "separate_attention" in {each.name: each.reason for each in left}["attention.attention"]


def test_one_head_is_a_single_unit_and_no_number_is_said() -> None:
    _, left = coupled_groups(Layer(Attention(heads=1, key_heads=1, head_dim=12)).eval(), TOKENS)
    assert "a single unit" in {each.name: each.reason for each in left}["attention.q_proj"]
    model = Layer(Attention())
    model.attention.size, model.attention.count = model.attention.head_dim, model.attention.num_heads

    class Silent(Attention):
        head_dim = property(lambda self: 3)
        num_heads = property(lambda self: 4)

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in ("head_dim", "num_heads"):
                super().__setattr__(name, value)

    _, left = coupled_groups(Layer(Silent()).eval(), TOKENS)
    assert "how wide they are" in {each.name: each.reason for each in left}["attention.q_proj"]


def test_a_trial_puts_every_tensor_and_number_back() -> None:
    model, group = heads_of("grouped")
    tensors, state = {id(each) for each in model.parameters()}, copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError), cut_for_a_trial(model, [group], [[0]]):
        model(TOKENS[..., :3])
    assert {id(each) for each in model.parameters()} == tensors
    assert model.attention.num_heads == 4
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_number_that_is_not_the_planned_one_is_refused() -> None:
    from thresher.errors import InputError

    model, group = heads_of("separate")
    plan = ShrinkPlan(model="Layer", groups=(group.plan([1]),))
    model.attention.num_heads = 5
    with pytest.raises(InputError, match="num_heads=5"):
        plan.apply(model)


def test_a_gate_and_its_value_are_one_group_inside_the_block() -> None:
    class Glu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = nn.Linear(12, 7), nn.Linear(12, 7)
            self.down_proj = nn.Linear(7, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))

    model = Layer(Glu())
    (group,) = proven(model, TOKENS, coupled_groups(model, TOKENS)[0])[0]
    assert set(group.producers) == {"attention.gate_proj", "attention.up_proj"}
    assert not group.across


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_fused_gate_is_found_in_both_layouts(interleaved: bool) -> None:
    class FusedGlu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.down = nn.Linear(12, 14), nn.Linear(7, 12)

        def forward(self, x: Tensor) -> Tensor:
            y = self.both(x)
            gate, value = (y[..., ::2], y[..., 1::2]) if interleaved else y.chunk(2, -1)
            return self.down(functional.silu(gate) * value)

    model = Layer(FusedGlu()).eval()
    groups, left = coupled_groups(model, TOKENS)
    (group,) = proven(model, TOKENS, groups)[0]
    assert group.members[0].index[2] == ((4, 5) if interleaved else (2, 9))
    small = ShrinkPlan(model="Layer", groups=(group.plan([0, 3]),)).apply(model)
    assert small.attention.both.out_features == 4
    assert "attention.both" not in {each.name for each in left}
