"""Claims about distillation: its value, whom its gradient reaches, and that a run of it resumes bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from thresher import load_state
from thresher.apps.runs import Run
from thresher.apps.train import Progress, TrainConfig, fit
from thresher.apps.train.objective import Objective, distillation
from thresher.errors import InputError

SMALL = {"model": "small-cnn", "data": "digits", "limit": 256, "batch_size": 64, "threads": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("dense") / "run")
    fit(TrainConfig(**SMALL, epochs=6), run)
    return str(run.path)


def test_distillation_is_the_divergence_of_softened_answers():
    torch.manual_seed(0)
    logits, teacher = torch.randn(5, 3), torch.randn(5, 3)
    wanted, given = (teacher / 2).softmax(1), (logits / 2).softmax(1)
    expected = 4 * (wanted * (wanted / given).log()).sum(1).mean()
    assert distillation(logits, teacher, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_teacher_answers_in_eval_mode_and_gets_no_gradient():
    teacher = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    logits = torch.randn(2, 3, requires_grad=True)
    inputs, labels = torch.randn(2, 4), torch.tensor([0, 2])
    objective = Objective(teacher, distill=0.5, temperature=4.0, label_smoothing=0.0)
    loss = objective(logits, inputs, labels)
    loss.backward()
    expected = 0.5 * functional.cross_entropy(logits, labels) + 0.5 * distillation(logits, teacher[0](inputs), 4.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logits.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_distillation_the_teacher_is_never_asked():
    def refuse(inputs):
        raise AssertionError("asked")

    teacher = nn.Identity()
    teacher.forward = refuse
    logits, labels = torch.randn(2, 3), torch.tensor([0, 2])
    loss = Objective(teacher, distill=0.0, temperature=4.0, label_smoothing=0.1)(logits, logits, labels)
    assert torch.equal(loss, functional.cross_entropy(logits, labels, label_smoothing=0.1))


def test_distillation_needs_weights_to_start_from():
    with pytest.raises(ValueError, match="distill without weights"):
        TrainConfig(**SMALL, distill=0.5)


def test_a_distilled_run_differs_and_resumes_bit_for_bit(trained, tmp_path):
    class Stop(Progress):
        def stepped(self, step):
            if step == 5:
                raise KeyboardInterrupt

    asked = TrainConfig(
        **{**SMALL, "model": None}, epochs=2, weights=trained, distill=0.9, method="power", budget="sparsity=80%"
    )
    whole = Run.create(tmp_path / "whole")
    fit(asked, whole)
    broken = Run.create(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        fit(asked, broken, Stop())
    fit(asked, broken)
    plain = Run.create(tmp_path / "plain")
    fit(TrainConfig(**{**asked.model_dump(), "distill": 0.0}), plain)
    states = [load_state(run.path / "model.safetensors")[0] for run in (whole, broken, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_an_impossible_temperature_is_refused():
    from thresher.apps.train.asking.reading import parse_config

    with pytest.raises(InputError):
        parse_config({**SMALL, "temperature": 0})
