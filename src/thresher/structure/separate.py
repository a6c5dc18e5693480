"""torch's MultiheadAttention taken apart: its heads are tied to the width of its input, those of layers are not."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from thresher.errors import InputError


class SeparateAttention(nn.Module):
    """What nn.MultiheadAttention computes, by one linear layer each for queries, keys, values and output.

    Heads may be fewer than the width of the input has room for. Called as the layer it replaces, with the same shapes
    and masks, in nn.TransformerEncoderLayer and nn.TransformerDecoderLayer too; their fused path is not taken then.

    Errors: InputError for a layer with extra keys (add_bias_kv, add_zero_attn), and for a mask per head once heads are
    gone.
    """

    # What nn.TransformerEncoderLayer asks before it takes its fused path: this layer has no packed weights.
    in_proj_bias: ClassVar[None] = None
    _qkv_same_embed_dim: ClassVar[bool] = False

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        if not separable(whole):
            raise InputError("a MultiheadAttention with extra keys", "one without", "exclude it by a rule")
        self.num_heads, self.head_dim = whole.num_heads, whole.head_dim
        self.dropout, self.batch_first = whole.dropout, whole.batch_first
        packed: Tensor | None = whole.in_proj_weight
        own = (whole.q_proj_weight, whole.k_proj_weight, whole.v_proj_weight)
        weights = own if packed is None else packed.chunk(3)
        biases = (None,) * 3 if whole.in_proj_bias is None else whole.in_proj_bias.chunk(3)
        layers = [_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
        self.q_proj, self.k_proj, self.v_proj = layers
        self.out_proj = _linear(whole.out_proj.weight, whole.out_proj.bias)
        self.train(whole.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention; `is_causal` is a hint there and needs `attn_mask` beside it."""
        single = query.ndim == 2
        turned = not self.batch_first and not single
        given = [each.transpose(0, 1) if turned else each[None] if single else each for each in (query, key, value)]
        layers = (self.q_proj, self.k_proj, self.v_proj)
        queries, keys, values = (
            layer(each).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer, each in zip(layers, given, strict=True)
        )
        mask = self._mask(queries, keys, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = queries @ keys.mT / self.head_dim**0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            mixed = functional.dropout(weights, dropout) @ values
        else:
            mixed = functional.scaled_dot_product_attention(queries, keys, values, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        output = output[0] if single else output.transpose(0, 1) if turned else output
        if not need_weights:
            return output, None
        weights = weights.mean(1) if average_attn_weights else weights
        return output, weights[0] if single else weights

    def _mask(self, queries: Tensor, keys: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores (batch, heads, queries, keys), None for nothing."""
        added: Tensor | None = None
        if mask is not None:
            if mask.ndim == 3 and len(mask) != len(queries) * self.num_heads:
                raise InputError(
                    f"a mask for {len(mask)} heads of all samples",
                    f"{len(queries) * self.num_heads}, of {self.num_heads} heads",
                    "give a mask (queries, keys), or drop what belongs to heads that are gone",
                )
            added = _added(mask, queries)
            added = added.unflatten(0, (len(queries), self.num_heads)) if mask.ndim == 3 else added
        if padding is not None:
            hidden = _added(padding, queries).reshape(len(queries), 1, 1, keys.shape[2])
            added = hidden if added is None else added + hidden
        return added


def separate_attention(model: nn.Module) -> nn.Module:
    """A copy of `model` with every nn.MultiheadAttention that allows it replaced by `SeparateAttention`.

    >>> model = separate_attention(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)))
    >>> type(model[0].self_attn).__name__, model[0].self_attn.q_proj.out_features
    ('SeparateAttention', 8)
    """
    twin = copy.deepcopy(model)
    whole = [name for name, module in twin.named_modules(remove_duplicate=False) if name and separable(module)]
    put(twin, parts_of(twin, whole))
    return twin


def parts_of(model: nn.Module, names: Iterable[str]) -> dict[str, SeparateAttention]:
    """The layers `names` of `model` taken apart; a layer under two names is one here too."""
    made: dict[nn.Module, SeparateAttention] = {}
    found = {}
    for name in names:
        whole = model.get_submodule(name)
        if isinstance(whole, nn.MultiheadAttention):
            found[name] = made[whole] = made.get(whole) or SeparateAttention(whole)
    return found


def put(model: nn.Module, parts: Mapping[str, SeparateAttention]) -> None:
    """Replace layers of `model` itself by `parts`."""
    for name, part in parts.items():
        model.set_submodule(name, part)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and _has_separate(module):
            module.use_nested_tensor = False  # it would look for packed weights


def rejoin(small: nn.Module, like: nn.Module) -> None:
    """Put nn.MultiheadAttention back wherever `small` has lost nothing of what it is in `like`, as it is now."""
    joined: dict[nn.Module, nn.Module] = {}
    for name, old in like.named_modules(remove_duplicate=False):
        new = small.get_submodule(name) if isinstance(old, nn.MultiheadAttention) else None
        if isinstance(new, SeparateAttention) and isinstance(old, nn.MultiheadAttention) and _packed(new, old):
            joined[new] = joined.get(new) or _joined(new, old)
            small.set_submodule(name, joined[new])
    for name, old in like.named_modules():
        if isinstance(old, nn.TransformerEncoder):
            encoder = small.get_submodule(name)
            if isinstance(encoder, nn.TransformerEncoder) and not _has_separate(encoder):
                encoder.use_nested_tensor = old.use_nested_tensor


def apart(model: nn.Module, name: str) -> str | None:
    """The nn.MultiheadAttention of `model` that `name` would be a layer of, if it were taken apart."""
    parent, _, child = name.rpartition(".")
    if not parent or child not in ("q_proj", "k_proj", "v_proj", "out_proj"):
        return None
    try:
        return parent if isinstance(model.get_submodule(parent), nn.MultiheadAttention) else None
    except AttributeError:
        return None


def separable(module: nn.Module) -> bool:
    """Whether it is an nn.MultiheadAttention, of that very class, without extra keys."""
    plain = type(module) is nn.MultiheadAttention
    return plain and module.bias_k is None and not module.add_zero_attn


def _has_separate(module: nn.Module) -> bool:
    return any(isinstance(each, SeparateAttention) for each in module.modules())


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer


def _packed(new: SeparateAttention, old: nn.MultiheadAttention) -> bool:
    """Whether nothing is gone."""
    widths = [(old.embed_dim, old.embed_dim), (old.embed_dim, old.kdim), (old.embed_dim, old.vdim)]
    layers = (new.q_proj, new.k_proj, new.v_proj)
    same = [layer.weight.shape == wide for layer, wide in zip(layers, widths, strict=True)]
    return all(same) and new.num_heads == old.num_heads and new.out_proj.weight.shape == old.out_proj.weight.shape


def _joined(new: SeparateAttention, old: nn.MultiheadAttention) -> nn.MultiheadAttention:
    whole = copy.deepcopy(old)
    layers = (new.q_proj, new.k_proj, new.v_proj)
    with torch.no_grad():
        if whole.in_proj_weight is not None:
            whole.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        else:
            for name, layer in zip("qkv", layers, strict=True):
                getattr(whole, f"{name}_proj_weight").copy_(layer.weight)
        if whole.in_proj_bias is not None:
            whole.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        whole.out_proj.load_state_dict(new.out_proj.state_dict())
    return whole


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask (True: hidden) as what is added to the scores."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
