"""A shrunk network in a folder: config, plan and tensors, no pickle; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from coupled_nets import IMAGES, Concat, settled
from safetensors.torch import load_file, save_file
from torch import nn

from thresher.errors import InputError
from thresher.structure import ShrinkPlan, coupled_groups, load_folder, save_folder


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, nn.Module]:
    dense = settled(Concat())
    groups, _ = coupled_groups(dense, IMAGES)
    plan = ShrinkPlan(model="Concat", groups=tuple(group.plan(range(1, group.units)) for group in groups))
    small = plan.apply(dense)
    save_folder(small, plan, tmp_path / "net")
    return tmp_path / "net", small


def test_what_was_saved_comes_back(written: tuple[Path, nn.Module]) -> None:
    folder, small = written
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "shrink-plan.json"]
    again = load_folder(folder, Concat())
    assert torch.equal(again(IMAGES), small(IMAGES))
    assert not again.training


def test_the_dense_network_is_left_alone_and_needed(written: tuple[Path, nn.Module]) -> None:
    dense = Concat()
    before = dense.left.weight.clone()
    load_folder(written[0], dense)
    assert torch.equal(dense.left.weight, before)
    with pytest.raises(InputError, match="dense="):
        load_folder(written[0])


@pytest.mark.parametrize("name", ["model.safetensors", "shrink-plan.json"])
def test_a_missing_file_is_named(written: tuple[Path, nn.Module], name: str) -> None:
    (written[0] / name).unlink()
    with pytest.raises(InputError, match=name):
        load_folder(written[0], Concat())


def test_damage_and_other_tensors_are_refused(written: tuple[Path, nn.Module]) -> None:
    folder, _ = written
    state = load_file(folder / "model.safetensors")
    save_file({**state, "extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="extra"):
        load_folder(folder, Concat())
    del state["head.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"head\.weight"):
        load_folder(folder, Concat())
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="sound safetensors"):
        load_folder(folder, Concat())


def test_a_model_that_is_not_cut_is_not_saved_beside_the_plan(written: tuple[Path, nn.Module], tmp_path: Path) -> None:
    plan = ShrinkPlan.from_json((written[0] / "shrink-plan.json").read_text())
    with pytest.raises(InputError, match="as the plan leaves it"):
        save_folder(Concat(), plan, tmp_path / "other")


def test_a_config_that_names_no_model_of_transformers_is_refused(written: tuple[Path, nn.Module]) -> None:
    pytest.importorskip("transformers")
    (written[0] / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["os"]}))
    with pytest.raises(InputError, match="architecture 'os'"):
        load_folder(written[0])


def test_half_precision_and_ties_survive(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.one(x) + self.two(x))

    dense, x = Tied().to(torch.bfloat16), torch.randn(3, 4, dtype=torch.bfloat16)
    groups, _ = coupled_groups(dense, x)
    plan = ShrinkPlan(model="Tied", groups=(groups[0].plan([0, 3, 4]),))
    save_folder(plan.apply(dense), plan, tmp_path)
    again = load_folder(tmp_path, Tied())
    assert again.one.weight is again.two.weight
    assert again.one.weight.dtype == torch.bfloat16
    assert torch.equal(again(x), plan.apply(dense)(x))
