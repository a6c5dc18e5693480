"""Two tasks on text: sentiment, for an encoder of BERT's kind that is trained here, and stories, for a small Llama."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Protocol

import torch
from oneshot import accuracy, padded, sentences, story_losses
from torch import Tensor, nn

from thresher.apps.data.roots import find

BATCH = 64


class Task(Protocol):
    """What a network is trained for and measured by."""

    measure: str
    steps: int

    def model(self) -> nn.Module:
        """A network that has seen nothing."""

    def batches(self, seed: int) -> Iterator[dict[str, Tensor]]:
        """Labelled training batches without end."""

    def calibration(self, seed: int) -> list[dict[str, Tensor]]:
        """What units are chosen on, with labels."""

    def value(self, model: nn.Module) -> float:
        """The measure, on data held out."""


def fit(task: Task, model: nn.Module, steps: int, rate: float, seed: int) -> None:
    """Train with AdamW, the rate falling in a straight line."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    model.train()
    for batch in itertools.islice(task.batches(seed), steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


class Sentiment:
    """SST-2, words as tokens, two epochs, four layers; accuracy on the 872 sentences of the validation set."""

    measure = "accuracy in percent"

    def __init__(self, limit: int | None) -> None:
        self.train, self.labels, words = sentences("train", None, limit)
        self.held, self.truth, _ = sentences("validation", words, None)
        self.words = max(words.values()) + 1
        self.steps = 2 * (len(self.train) // BATCH)

    def model(self) -> nn.Module:
        """Four layers and a classifier."""
        from transformers import BertConfig, BertForSequenceClassification

        shape = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 384}
        config = BertConfig(vocab_size=self.words, max_position_embeddings=64, **shape)
        return BertForSequenceClassification(config)

    def batches(self, seed: int) -> Iterator[dict[str, Tensor]]:
        """Sentences of like length share a batch, so that little is padding."""
        noise = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self.train), generator=noise)
            batches = []
            for pool in order.split(50 * BATCH):
                by_length = torch.tensor(sorted(pool.tolist(), key=lambda place: len(self.train[place])))
                batches += [part for part in by_length.split(BATCH) if len(part) == BATCH]
            yield from (self._batch(batches[place]) for place in torch.randperm(len(batches), generator=noise).tolist())

    def _batch(self, chosen: Tensor) -> dict[str, Tensor]:
        return {**padded([self.train[place] for place in chosen.tolist()]), "labels": self.labels[chosen]}

    def calibration(self, seed: int) -> list[dict[str, Tensor]]:
        """640 sentences of any length."""
        chosen = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))[: 10 * BATCH]
        return [self._batch(part) for part in chosen.split(BATCH)]

    def value(self, model: nn.Module) -> float:
        """On the validation set."""
        return accuracy(model, self.held, self.truth)


class Stories:
    """The Llama of 260,032 parameters in shared/data/weights/stories260k, as it is; perplexity on five TinyStories.

    Units are chosen, and networks fine-tuned, on text that the dense network wrote itself (temperature 1): the stories
    that it was trained on are not at hand.
    """

    measure, LONG = "perplexity", 256

    def __init__(self, limit: int | None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder, text = find("weights/stories260k"), find("lm/tinystories_sample.txt")
        if folder is None or text is None:
            raise SystemExit("shared data not found: set THRESHER_DATA")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        parts = text.read_text(encoding="utf-8").split("<|endoftext|>")
        self.told = [tokenizer(part.strip(), return_tensors="pt").input_ids for part in parts if part.strip()]
        self.dense = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.steps, self.count, self.own = 0, 256 if limit is None else 64, {}

    def model(self) -> nn.Module:
        """Trained already."""
        return self.dense

    def _written(self, seed: int) -> Tensor:
        if seed not in self.own:
            torch.manual_seed(seed)
            start = torch.full((self.count, 1), self.dense.config.bos_token_id)
            self.own[seed] = self.dense.generate(
                start, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=self.LONG - 1, eos_token_id=None,
                pad_token_id=0,
            )  # fmt: skip
        return self.own[seed]

    def batches(self, seed: int) -> Iterator[dict[str, Tensor]]:
        """Eight texts at a time, none of those that units are chosen on."""
        noise = torch.Generator().manual_seed(seed)
        rest = self._written(seed % 1000)[self.count // 4 :]
        while True:
            for chosen in torch.randperm(len(rest), generator=noise).split(8):
                yield {"input_ids": rest[chosen], "labels": rest[chosen]}

    def calibration(self, seed: int) -> list[dict[str, Tensor]]:
        """A quarter of the texts."""
        return [{"input_ids": ids, "labels": ids} for ids in self._written(seed)[: self.count // 4].split(16)]

    def value(self, model: nn.Module) -> float:
        """On the five stories, none of which was used before."""
        loss, tokens = story_losses(model, self.told)
        return math.exp(loss / tokens)


TASKS = {"sst2": Sentiment, "stories": Stories}
