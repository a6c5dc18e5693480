"""Attention heads as units: for each layout that a layer may have a candidate group, to be proven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from torch import nn

from thresher.structure.attention import HEADS, Attention
from thresher.structure.cutting import axis_of, width_of
from thresher.structure.groups import Counter, CoupledGroup, Member

# Numbers that modules keep, by what they count.
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
_PER_KEY_HEAD = ("num_key_value_groups", "n_rep")
_WIDTHS = ("all_head_size", "split_size", "inner_dim", "attn_dim")
_WIDTHS_OR_INPUTS = ("embed_dim", "hidden_size", "dim")


def head_groups(model: nn.Module, layer: Attention) -> Iterator[CoupledGroup]:
    """Candidates for the group of a layer's heads, the likeliest first: only a trial says which is right.

    They differ in how a fused layer lies (queries, keys, values one after the other, or head by head), and in which
    numbers and other tensors of the layer (biases of positions, scales) go by head.
    """
    layouts = [_separate(layer)] if len(layer.made) == 3 else [_blocks(layer), _by_head(layer)]
    extras = [
        _extras(model, layer, around=around, buffers=buffers) for around in (False, True) for buffers in (True, False)
    ]
    numbers = _numbers(model, layer)
    seen = set()
    certain = tuple(each for each in numbers if each.name not in _WIDTHS_OR_INPUTS)
    for made, more, counters in product(layouts, dict.fromkeys((*extras, ())), dict.fromkeys((numbers, certain))):
        members = (*made, _out_member(layer), *more)
        if (members, counters) not in seen:
            seen.add((members, counters))
            yield CoupledGroup(
                name=layer.made[0],
                units=layer.units,
                members=members,
                producers=layer.made,
                kind="heads",
                counters=counters,
            )


def joint_group(groups: Sequence[CoupledGroup]) -> CoupledGroup:
    """One group of the heads of several layers, which lose the same ones: where all of them are given one table of
    position biases that a single layer holds, as in T5."""
    first = groups[0]
    return replace(
        first,
        members=tuple(dict.fromkeys(member for group in groups for member in group.members)),
        producers=tuple(dict.fromkeys(name for group in groups for name in group.producers)),
        counters=tuple(dict.fromkeys(counter for group in groups for counter in group.counters)),
    )


def _run(start: int, count: int) -> tuple[int, ...]:
    return tuple(range(start, start + count))


def _heads_of(layer: Attention, unit: int) -> int:
    return layer.heads // layer.units * unit


def _separate(layer: Attention) -> tuple[Member, ...]:
    queries, keys, values = layer.made
    each = layer.heads // layer.units * layer.width
    members = [_member(layer, queries, [_run(unit * each, each) for unit in range(layer.units)])]
    if layer.key_heads > 1:
        rows = [_run(unit * layer.width, layer.width) for unit in range(layer.units)]
        members += [_member(layer, keys, rows), _member(layer, values, rows)]
    return tuple(members)


def _blocks(layer: Attention) -> tuple[Member, ...]:
    """[all queries | all keys | all values]."""
    each, keys = layer.heads // layer.units * layer.width, layer.heads * layer.width
    values = keys + layer.key_heads * layer.width
    rows = [
        _run(unit * each, each)
        + (
            (*_run(keys + unit * layer.width, layer.width), *_run(values + unit * layer.width, layer.width))
            if layer.key_heads > 1
            else ()
        )
        for unit in range(layer.units)
    ]
    return (_member(layer, layer.made[0], rows),)


def _by_head(layer: Attention) -> tuple[Member, ...]:
    """Per key/value head its queries, its key, its value."""
    each = (layer.heads // layer.key_heads + 2) * layer.width
    if layer.key_heads == 1:
        return _blocks(layer)
    return (_member(layer, layer.made[0], [_run(unit * each, each) for unit in range(layer.units)]),)


def _out_member(layer: Attention) -> Member:
    each = layer.heads // layer.units * layer.width
    index = tuple(_run(unit * each, each) for unit in range(layer.units))
    return Member(module=layer.out, axis="in", size=layer.heads * layer.width, index=index)


def _member(layer: Attention, module: str, rows: Sequence[tuple[int, ...]]) -> Member:
    size = layer.heads * layer.width
    if len(layer.made) == 1:
        size += 2 * layer.key_heads * layer.width
    elif module != layer.made[0]:
        size = layer.key_heads * layer.width
    return Member(module=module, axis="out", size=size, index=tuple(rows))


def _around(model: nn.Module, layer: Attention) -> Iterator[tuple[str, nn.Module]]:
    holders = {name.rpartition(".")[0] for name in (*layer.made, layer.out)}
    for name, module in model.get_submodule(layer.root).named_modules(prefix=layer.root):
        # The root of a BERT layer holds more than attention only through these.
        if any(name == holder or name.startswith(f"{holder}.") or not holder for holder in holders):
            yield name, module


def _extras(model: nn.Module, layer: Attention, *, around: bool, buffers: bool) -> tuple[Member, ...]:
    """Tensors with one entry per query head along exactly one axis: tables of position biases, scales, small layers
    that make them. around: also what its block holds under a name of positions, as in BEiT."""
    found = []
    share = layer.heads // layer.units
    places = dict(_around(model, layer))
    if around:
        block = layer.root.rpartition(".")[0]
        inside = model.get_submodule(block).named_modules(prefix=block)
        places |= {name: module for name, module in inside if "position" in name[len(block) :]}
    for name, module in places.items():
        if name in (*layer.made, layer.out):
            continue
        side = axis_of(module, "out")
        axes = {side} if width_of(module, side) == layer.heads and module._parameters else set()
        tensors = {**module._parameters, **(module._buffers if buffers else {})}
        for tensor, value in tensors.items() if width_of(module, side) is None else ():
            fitting = [] if value is None else [axis for axis, size in enumerate(value.shape) if size == layer.heads]
            axes |= {f"{tensor}:{fitting[0]}"} if len(fitting) == 1 else set()
        for axis in sorted(axes):
            index = tuple(_run(_heads_of(layer, unit), share) for unit in range(layer.units))
            found.append(Member(module=name, axis=axis, size=layer.heads, index=index))
    return tuple(found)


def _numbers(model: nn.Module, layer: Attention) -> tuple[Counter, ...]:
    wanted = dict.fromkeys(HEADS, layer.heads)
    if layer.key_heads > 1:
        wanted |= dict.fromkeys(_KEY_HEADS, layer.key_heads)
    else:
        wanted |= dict.fromkeys(_PER_KEY_HEAD, layer.heads)
    wanted |= dict.fromkeys((*_WIDTHS, *_WIDTHS_OR_INPUTS), layer.heads * layer.width)
    found = []
    for name, module in _around(model, layer):
        if name not in (*layer.made, layer.out):
            for key, value in vars(module).items():
                if type(value) is int and wanted.get(key) == value:
                    found.append(Counter(module=name, name=key, size=value))
    return tuple(found)
