"""Attention layers, told by the names and widths of their projections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from thresher.budget.linear import features_of, is_linear
from thresher.structure.groups import LeftWhole

_QUERY = ("q_proj", "query", "q_lin", "q", "query_proj", "to_q", "wq", "Wq", "q_linear")
_KEY = ("k_proj", "key", "k_lin", "k", "key_proj", "to_k", "wk", "Wk", "k_linear")
_VALUE = ("v_proj", "value", "v_lin", "v", "value_proj", "to_v", "wv", "Wv", "v_linear")
_FUSED = ("qkv", "qkv_proj", "c_attn", "query_key_value", "Wqkv", "to_qkv", "in_proj")
_OUT = ("o_proj", "out_proj", "out_lin", "o", "dense", "c_proj", "proj", "Wo", "wo", "to_out")
# Numbers that say how many heads there are and how wide.
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "num_q_heads", "heads")
_HEAD_WIDTH = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim", "d_kv")


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The parts of one attention layer: `root` holds them all; heads of queries, heads of keys and values, width."""

    root: str
    made: tuple[str, ...]
    out: str
    heads: int
    key_heads: int
    width: int

    @property
    def units(self) -> int:
        """A unit is a key/value head with the query heads that share it; with one key/value head, a query head."""
        return self.key_heads if self.key_heads > 1 else self.heads


def attention_layers(model: nn.Module) -> Iterator[Attention | LeftWhole]:
    """Every attention layer whose projections can be told by their names and widths, or why not."""
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            reason = "torch's MultiheadAttention ties its heads to the width of its input"
            yield LeftWhole(name, f"attention heads: {reason}; take it apart with separate_attention")
            continue
        children = {child: made for child, made in module._modules.items() if made is not None and is_linear(made)}
        separate = [next((child for child in names if child in children), None) for names in (_QUERY, _KEY, _VALUE)]
        fused = next((child for child in _FUSED if child in children), None)
        made = [child for child in separate if child] if all(separate) else [fused] if fused else []
        if made:
            yield _attention(model, name, tuple(made))


def _attention(model: nn.Module, name: str, children: tuple[str, ...]) -> Attention | LeftWhole:
    module, prefix = model.get_submodule(name), f"{name}." if name else ""
    made = tuple(prefix + child for child in children)
    outs = [features_of(model.get_submodule(each))[1] for each in made]
    found = _out(model, name, made, outs)
    if found is None:
        return LeftWhole(made[0], "attention heads: no projection behind them is found")
    root, out = found
    wide = features_of(model.get_submodule(out))[0]
    numbers = {key: value for key, value in vars(module).items() if type(value) is int and value > 0}
    width = next((numbers[key] for key in _HEAD_WIDTH if key in numbers), 0)
    heads = next((numbers[key] for key in HEADS if key in numbers), 0)
    width = width or (wide // heads if heads else 0)
    if not width or wide % width:
        return LeftWhole(made[0], "attention heads: no attribute such as num_heads or head_dim says how wide they are")
    heads = wide // width
    # Fused: queries, keys and values lie in one layer.
    key_heads = outs[1] // width if len(made) == 3 else (outs[0] // width - heads) // 2
    sound = outs == [heads * width, key_heads * width, key_heads * width] or outs == [(heads + 2 * key_heads) * width]
    if not sound or key_heads < 1 or heads % key_heads:
        return LeftWhole(made[0], f"attention heads: widths {outs} do not make heads of {width}")
    return Attention(root=root, made=made, out=out, heads=heads, key_heads=key_heads, width=width)


def _out(model: nn.Module, name: str, made: Sequence[str], outs: Sequence[int]) -> tuple[str, str] | None:
    """(the module that holds everything, the output projection): a child, or in a sibling as in BERT."""
    parent = name.rpartition(".")[0]
    for root in (name, parent) if name else (name,):
        for path, module in model.get_submodule(root).named_modules(prefix=root):
            fits = is_linear(module) and path not in made and path.rpartition(".")[2] in _OUT
            if fits and (features_of(module)[0] == outs[0] if len(made) == 3 else features_of(module)[0] < outs[0]):
                return root, path
    return None
