"""What a training or pruning run is asked: one frozen record, read from flags and from files alike."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


def _step_or_share(value: object) -> object:
    # The command line hands over text: "200" is a step, "0.2" a share of the run.
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return float(value)
    return value


class TrainConfig(BaseModel):
    """Everything that decides a run's outcome. Field descriptions are the help texts of the command line.

    Errors: pydantic's ValidationError; `read_config` turns it into an InputError.

    >>> TrainConfig(data="digits", model="small-cnn").batch_size
    128
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str | None = Field(None, description="network by name; default: the one --weights were saved from")
    weights: str | None = Field(None, description="a safetensors file, a run folder, or known weights by name")
    data: str = Field("digits", description="data set by name, folder, or hub:NAME")
    data_root: str | None = Field(None, description="folder that holds the named data sets")
    limit: int | None = Field(None, ge=1, description="at most that many images in each part")
    held_out: float = Field(
        0.0, ge=0, lt=1, description="share of the training images to test on, in place of the test part"
    )

    epochs: int = Field(
        10, ge=0, description="passes over the training images; 0 for one-shot methods without training"
    )
    batch_size: int = Field(128, ge=1, description="images in a step")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="sgd, adam or adamw")
    lr: float = Field(0.05, gt=0, description="learning rate after warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(False, description="Nesterov's momentum")
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty")
    decay_norm_bias: bool = Field(True, description="let weight decay act on norm parameters and biases too")
    schedule: Literal["cosine", "linear", "constant", "step"] = Field(
        "cosine", description="of the learning rate: cosine, linear, constant or step (a tenth at 1/2 and 3/4)"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs in which the learning rate rises from 0")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    distill: float = Field(
        0.0, ge=0, le=1, description="share of the loss that asks for the answers of the network before pruning"
    )
    temperature: float = Field(4.0, gt=0, description="of the distilled answers: above 1 softens them")
    augment: str | None = Field(
        None, description="none, crop_flip or shift; default: shift for grey, crop_flip for colour"
    )

    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of training: fp32, bf16 or fp16")
    compile: bool = Field(False, description="train through torch.compile")
    channels_last: bool = Field(False, description="keep images channels last in memory")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    deterministic: bool = Field(True, description="on CUDA, only kernels that give the same result each time")
    threads: int | None = Field(None, ge=1, description="CPU threads")
    seed: int = Field(0, ge=0, description="of start weights, data order, augmentation and dropout")
    checkpoint_every: int | None = Field(None, ge=1, description="steps between checkpoints, besides one per epoch")

    method: str | None = Field(None, description="pruning method, e.g. lats, gmp:end=0.75; see `thresher methods`")
    budget: str | None = Field(None, description="e.g. sparsity=90%, or flops=25%,bytes=500KB")
    engine: Literal["thresher"] | None = Field(None, description="whose time a latency= budget means: thresher")
    rules: tuple[str, ...] = Field((), description="include:, exclude:, dense:PATTERN or PATTERN:min=50%,max=95%")
    groups: str = Field("weight", description="what is pruned as one: weight, 2:4, block:4x1, row, column, kernel")
    start: Annotated[int | float, BeforeValidator(_step_or_share)] = Field(
        0, ge=0, description="where pruning begins: a step, or a share of the run below 1"
    )

    trail: int = Field(0, ge=0, description="networks to keep on the way in RUN/trail, ever sparser; 0 keeps none")

    @model_validator(mode="after")
    def _agree(self) -> TrainConfig:
        if self.model is None and self.weights is None:
            raise ValueError("model and weights are both missing; name a network, or weights that know theirs")
        if self.distill and self.weights is None:
            raise ValueError("distill without weights: the network before pruning knows nothing; add weights")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer=sgd and momentum above 0")
        if self.method is None and (self.budget is not None or self.rules):
            raise ValueError("a budget or rules without a method; add a method, e.g. lats")
        if self.engine is not None and "latency" not in (self.budget or ""):
            raise ValueError("an engine without a latency= budget; add one, e.g. latency=5ms, or drop engine")
        if self.method is None and self.trail:
            raise ValueError("a trail without a method, which would never get sparser; add a method, or drop trail")
        if self.method is None and self.epochs == 0:
            raise ValueError("epochs=0 without a method leaves nothing to do; raise epochs")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be below epochs")
        return self


MACHINE_FIELDS = frozenset({"device", "threads", "data_root", "checkpoint_every"})
"""Fields that a resumed run may change: where it runs, not what it computes."""
