"""Lightning: closures inside the optimizer's step, optimizers made late, clipping, checkpoints."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from trainer_bench import BUDGET, CLIP, EPOCHS, METHODS, STEPS, check_same, decayed, loader, net, outcome, plain_run

import thresher

lightning = pytest.importorskip("lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore")


class Module(lightning.LightningModule):
    """`when`: the hook that calls thresher.prune; `follows`: whether configure_optimizers names the optimizer."""

    def __init__(self, method: str, when: str = "setup", *, follows: bool = True, explicit: bool = False) -> None:
        super().__init__()
        self.net, self.method, self.follows, self.explicit = net(), method, follows, explicit
        if when == "init":
            self.begin(STEPS)

    def begin(self, steps: int) -> None:
        self.pruner = thresher.prune(self.net, None, self.method, BUDGET, steps=steps)

    def setup(self, stage: str) -> None:
        if not hasattr(self, "pruner"):
            self.begin(int(self.trainer.estimated_stepping_batches))

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        return loss + self.pruner.penalty() if self.explicit else loss

    def configure_optimizers(self) -> Any:
        optimizer = decayed(self.net)
        if self.follows:
            self.pruner.follow(optimizer)
        return optimizer


def trainer(epochs: int = EPOCHS) -> Any:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=CLIP,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("when", ["init", "setup"])
@pytest.mark.parametrize("follows", [True, False])
def test_training_is_that_of_a_plain_loop(method: str, when: str, follows: bool) -> None:
    module = Module(method, when, follows=follows)
    trainer().fit(module, loader())
    assert module.pruner.step == STEPS
    check_same(outcome(module.pruner), plain_run(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_penalty_in_the_loss_gives_the_same_thresholds(method: str) -> None:
    module = Module(method, explicit=True)
    trainer().fit(module, loader())
    found, expected = outcome(module.pruner), plain_run(method)
    assert torch.tensor(found.thresholds) == pytest.approx(torch.tensor(expected.thresholds), abs=1e-12)
    assert found.zeros == expected.zeros


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("follows", [True, False])
def test_a_checkpoint_brings_the_thresholds_along(method: str, follows: bool, tmp_path: Path) -> None:
    first = Module(method, "init", follows=follows)
    half = trainer(1)
    half.fit(first, loader())
    half.save_checkpoint(tmp_path / "half.ckpt")

    module = Module(method, "init", follows=follows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer().fit(module, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert module.pruner.step == STEPS
    check_same(outcome(module.pruner), plain_run(method))
