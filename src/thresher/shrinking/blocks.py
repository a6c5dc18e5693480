"""Language models block by block: of a checkpoint on disk, one block is in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.errors import InputError
from thresher.recovery.moments import inputs_of
from thresher.shrinking.verb import shrink_plan
from thresher.structure import GroupPlan, ShrinkPlan
from thresher.structure.checkpoint import INDEX, Checkpoint, from_config, parameters_on_meta
from thresher.structure.folder import PLAN, write_config


def shrink_folder(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    method: Any = "ispasp",
    budget: Any = None,
    *,
    calibration: Iterable[Any],
    **options: Any,
) -> ShrinkPlan:
    """Shrink the model of transformers in the folder `source`, block by block, and write it to `target`.

    The model is built without memory for weights. Block after block is read, shrunk by `shrink_plan` on what the shrunk
    blocks before it give, written, and let go. In memory are one block (and the copies that shrinking it takes), the
    layers outside the blocks, and the hidden states of all batches.

    Args:
        source: config.json and safetensors, as save_pretrained writes them. target: read it with `load_folder`.
        budget, options: those of `shrink_plan`, for each block by itself: "flops=50%" is half of every block, and names
            in `keep` and `rules` are those inside a block, as in {"*.q_proj": 0.5}.
        calibration: batches of token ids, or mappings with "input_ids".

    Errors: those of `shrink_plan`; InputError for a folder that cannot be used.
    """
    files, place = Checkpoint(Path(source)), Path(target)
    with parameters_on_meta():
        model = from_config(Path(source)).eval()
    name, blocks = blocks_of(model)
    files.fill(model, but=name)
    noted = [_Noted.of(model, blocks, inputs_of(batch)) for batch in calibration]
    if not noted:
        raise InputError("no batches", "at least one batch of token ids", "pass a loader that is not empty")
    place.mkdir(parents=True, exist_ok=True)
    hidden, shards = [each.hidden for each in noted], _Shards(place)
    groups: list[GroupPlan] = []
    for number, block in enumerate(blocks):
        path = f"{name}.{number}"
        files.fill(block, prefix=f"{path}.")
        batches = [each.batch(state, number) for state, each in zip(hidden, noted, strict=True)]
        result = shrink_plan(_Alone(block), method, budget, calibration=batches, **options)
        with torch.no_grad(), eval_mode(result.model):
            hidden = [call(result.model, batch) for batch in batches]
        groups += [_moved(group, path) for group in result.plan.groups]
        small = result.model.get_submodule("block").state_dict()
        shards.write(f"block-{number:05d}.safetensors", {f"{path}.{key}": tensor for key, tensor in small.items()})
        block.to("meta")
    outside = {key for key in model.state_dict() if not key.startswith(f"{name}.")}
    shards.write("outside.safetensors", files.read(outside))
    plan = ShrinkPlan(model=type(model).__name__, groups=tuple(groups))
    shards.close()
    (place / PLAN).write_text(plan.to_json(), encoding="utf-8")
    write_config(model, place)
    return plan


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of equal blocks with the most parameters, and its name. Errors: InputError when there is none."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(each) for each in module}) == 1
    }
    if not found:
        raise InputError(
            f"a {type(model).__name__} without a list of blocks", "a model made of equal blocks", "use shrink_plan"
        )
    name = max(found, key=lambda each: sum(parameter.numel() for parameter in found[each].parameters()))
    return name, found[name]


@dataclass(frozen=True, eq=False)
class _Given:
    """What a block is given beside its hidden states, for a whole batch of `size` samples."""

    size: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Noted:
    """One batch: hidden states that enter the first block, what each block is given, which tokens are no padding."""

    hidden: Tensor
    given: tuple[_Given, ...]
    padding: Tensor | None

    @classmethod
    def of(cls, model: nn.Module, blocks: nn.ModuleList, inputs: Any) -> _Noted:
        """Run the model with blocks that pass their input on. Whether it wants tensors or tuples of them shows."""
        inputs = {"input_ids": inputs} if isinstance(inputs, Tensor) else dict(inputs)
        for pack in (lambda tensor: tensor, lambda tensor: (tensor,)):
            seen: list[tuple[Tensor, _Given]] = []
            for block in blocks:
                block.forward = partial(_pass, seen, pack)
            try:
                with torch.no_grad():
                    call(model, {"use_cache": False, **inputs})
            except Exception:
                if len(seen) < len(blocks):
                    raise
            finally:
                for block in blocks:
                    del block.forward
            if len(seen) == len(blocks) and all(state.shape == seen[0][0].shape for state, _ in seen):
                return cls(seen[0][0], tuple(given for _, given in seen), inputs.get("attention_mask"))
        raise InputError(
            f"a {type(model).__name__} that does not run its blocks one after the other, once each",
            "a chain of blocks that take hidden states and give them",
            "use shrink_plan on the whole model",
        )

    def batch(self, hidden: Tensor, number: int) -> dict[str, Any]:
        """The keyword arguments of `_Alone` for block `number`."""
        found = {"hidden": hidden, "given": self.given[number]}
        return found if self.padding is None else {**found, "attention_mask": self.padding}


def _pass(seen: list[tuple[Tensor, _Given]], pack: Any, *args: Any, **kwargs: Any) -> Any:
    hidden, rest = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
    seen.append((hidden, _Given(len(hidden), rest, kwargs)))
    return pack(hidden)


class _Alone(nn.Module):
    """A block as a network of its own; the attention mask, of padding, is only for the moments to see."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, given: _Given, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states to hidden states; of fewer samples than were noted, these are the first."""
        rest = [_first(value, given.size, len(hidden)) for value in given.args]
        named = {key: _first(value, given.size, len(hidden)) for key, value in given.kwargs.items()}
        output = self.block(hidden, *rest, **named)
        return output if isinstance(output, Tensor) else output[0]


def _first(value: Any, size: int, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[:count] if value.ndim and len(value) == size != count else value
    return type(value)(_first(each, size, count) for each in value) if isinstance(value, (tuple, list)) else value


def _moved(group: GroupPlan, path: str) -> GroupPlan:
    """The group of a block alone, under the block's name in the model."""

    def name(inner: str) -> str:
        return path + inner.removeprefix("block")

    return replace(
        group,
        name=name(group.name),
        cuts=tuple(replace(cut, module=name(cut.module)) for cut in group.cuts),
        attributes=tuple(replace(each, module=name(each.module)) for each in group.attributes),
    )


class _Shards:
    """Safetensors files with an index."""

    def __init__(self, place: Path) -> None:
        self.place, self.files, self.size = place, dict[str, str](), 0

    def write(self, file: str, state: Mapping[str, Tensor]) -> None:
        """One file."""
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, self.place / file, {"format": "pt"})
        self.files |= dict.fromkeys(state, file)
        self.size += sum(tensor.nbytes for tensor in state.values())

    def close(self) -> None:
        """The index."""
        index = {"metadata": {"total_size": self.size}, "weight_map": self.files}
        (self.place / INDEX).write_text(json.dumps(index), encoding="utf-8")
