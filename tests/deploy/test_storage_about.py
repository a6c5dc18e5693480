"""Claims about what else a file holds: rounded values, a plan, a report, settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import thresher
from thresher.apps.train import TrainConfig
from thresher.deploy.storage import file_record, load, load_state, predicted_file_bytes, save
from thresher.errors import InputError


def pruned() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 10))
    thresher.prune(model, None, "magnitude", "sparsity=80%").finish()
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_weights_halve_the_values_and_widen_again(tmp_path: Path, dtype: torch.dtype) -> None:
    model = pruned()
    predicted = predicted_file_bytes(model, dtype=dtype)
    full, report = save(model, tmp_path / "full"), save(model, tmp_path / "x", dtype=dtype)
    assert (tmp_path / "x").stat().st_size == report.bytes == predicted < full.bytes
    assert report.dense_bytes == full.dense_bytes
    state, _ = load_state(tmp_path / "x")
    assert state["0.weight"].dtype == dtype
    assert state["0.bias"].dtype == state["1.running_var"].dtype == torch.float32
    fresh = load(tmp_path / "x", pruned())
    assert fresh[0].weight.dtype == torch.float32
    assert torch.equal(fresh[0].weight, model[0].weight.to(dtype).float())
    assert torch.equal(fresh[0].bias, model[0].bias)
    assert torch.equal(fresh[0].weight == 0, model[0].weight == 0)


def test_rounding_keeps_negative_zeros_nan_and_ties(tmp_path: Path) -> None:
    weight = torch.zeros(40, 40)
    weight[0, :3] = torch.tensor([-0.0, float("nan"), 2.0])
    report = save({"a": weight, "b": weight, "e": torch.zeros(0, 3)}, tmp_path / "x", dtype=torch.bfloat16)
    state, _ = load_state(tmp_path / "x")
    assert report.ties == {"b": "a"}
    assert state["a"] is state["b"]
    assert state["a"][0, 0].signbit()
    assert state["a"][0, 1].isnan()
    assert state["a"][0, 2] == 2
    assert state["e"].shape == (0, 3)


def test_values_beyond_float16_are_refused_and_infinities_stay(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w.*70000"):
        save({"w": torch.full((2, 2), 7e4)}, tmp_path / "x", dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    save({"w": torch.full((2, 2), torch.inf)}, tmp_path / "x", dtype=torch.float16)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, "bfloat16"])
def test_other_types_are_refused(tmp_path: Path, dtype: object) -> None:
    with pytest.raises(InputError):
        save(pruned(), tmp_path / "x", dtype=dtype)  # type: ignore[arg-type]


def test_a_narrower_model_is_not_widened_nor_a_wider_file_narrowed(tmp_path: Path) -> None:
    save(pruned(), tmp_path / "x", dtype=torch.float32)
    assert load_state(tmp_path / "x")[0]["0.weight"].dtype == torch.float32
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(InputError, match=r"torch.float32 for torch\."):
            load(tmp_path / "x", pruned().to(dtype))
    save(pruned().half(), tmp_path / "y")
    with pytest.raises(InputError, match=r"torch.float16 for torch.bfloat16"):
        load(tmp_path / "y", pruned().bfloat16())


def test_plan_report_and_config_travel_in_the_header(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    report = thresher.prune(model, None, "magnitude", "sparsity=50%").finish()
    plan = thresher.ShrinkPlan(model="Sequential", groups=())
    config = TrainConfig(model="mlp", data="digits")
    about = {"plan": plan, "report": report, "config": config}
    saved = save(model, tmp_path / "x", record={"epoch": 3}, **about)
    _, record = load_state(tmp_path / "x")
    assert set(record) == {"epoch", "plan", "report", "config"}
    assert thresher.ShrinkPlan.from_dict(record["plan"]) == plan
    assert thresher.Report.from_dict(record["report"]) == report
    assert TrainConfig(**record["config"]) == config
    assert predicted_file_bytes(model, record=file_record({"epoch": 3}, **about)) == saved.bytes


@pytest.mark.parametrize("plan", [3, "no json", "[1]", [1], object()])
def test_what_is_no_plan_is_refused(plan: object) -> None:
    with pytest.raises(InputError, match="plan="):
        file_record(plan=plan)


def test_one_plan_is_enough() -> None:
    with pytest.raises(InputError, match="one of the two"):
        file_record({"plan": {}}, plan=json.dumps({}))
