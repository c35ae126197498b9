"""What predicts the symbols: a Transformer for a text, a perceptron for labels.

A coder is a model and its training; :meth:`~LanguageCoder.start` gives its state at θ_0,
of which the codec asks one thing at a time: the batches, the probabilities of a batch before
the model has trained on it, and the loss to train on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from llbook.tasks import perceptron
from llbook.tasks.transformer import (
    PAD,
    Architecture,
    Prefix,
    initial_parameters,
    logits,
    token_losses,
)

__all__ = ["Coder", "LabelCoder", "LanguageCoder", "label_inputs"]

Symbols = NDArray[np.int32]
# (probabilities (m, V), positions (m,)) → the symbols at those positions
Exchange = Callable[[NDArray[np.float32], NDArray[np.int64]], None]


def _check(coder: LanguageCoder | LabelCoder, *counts: str) -> None:
    for name in counts:
        value = getattr(coder, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not (coder.learning_rate > 0 and math.isfinite(coder.learning_rate)):
        raise ValueError(f"learning_rate must be positive and finite, got {coder.learning_rate}")
    if coder.optimiser not in ("sgd", "adam"):
        raise ValueError(f"optimiser must be 'sgd' or 'adam', got {coder.optimiser!r}")


@dataclass(frozen=True)
class LanguageCoder:
    """A Transformer that predicts the next symbol of a text.

    The text is laid out in ``lanes`` equal stretches, read side by side; batch t
    is the t-th window of each. A window's first symbol is predicted from the one
    before it in the lane.

    Attributes:
        vocabulary: V.
        lanes, window: a batch is lanes × window symbols (B of the paper).
        hidden, layers, heads: the model, see :class:`llbook.tasks.transformer.Architecture`.
        optimiser: ``"sgd"``, as in the paper, or ``"adam"``.
        learning_rate: η, per batch.

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range.
    """

    vocabulary: int
    lanes: int = 8
    window: int = 32
    hidden: int = 64
    layers: int = 1
    heads: int = 4
    optimiser: str = "adam"
    learning_rate: float = 6e-3

    name: ClassVar = "language"

    def __post_init__(self) -> None:
        _check(self, "lanes", "window")
        self.architecture()

    def start(self, count: int, seed: int) -> LanguageModel:
        """θ_0 of ``seed``, before ``count`` symbols."""
        return LanguageModel(self, count, seed)

    def architecture(self) -> Architecture:
        return Architecture(
            vocabulary=self.vocabulary,
            context=self.window,
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
        )


@dataclass(frozen=True)
class LabelCoder:
    """A perceptron that predicts labels: a language model of one step, V = 2 (A.3).

    The inputs z_n are shared context, drawn from the seed by both sides
    (:func:`label_inputs`); only the labels are coded, 0 for -1 and 1 for +1.

    Attributes:
        dimension: D.
        batch: labels coded between two updates.
        optimiser, learning_rate: as in :class:`LanguageCoder`.
    """

    dimension: int
    batch: int = 16
    optimiser: str = "sgd"
    learning_rate: float = 0.1

    name: ClassVar = "labels"
    vocabulary: ClassVar = 2

    def __post_init__(self) -> None:
        _check(self, "dimension", "batch")

    def start(self, count: int, seed: int) -> LabelModel:
        """θ_0 and inputs of ``seed``, for ``count`` labels."""
        return LabelModel(self, count, seed)


Coder = LanguageCoder | LabelCoder
CODERS: dict[str, type[Coder]] = {coder.name: coder for coder in (LanguageCoder, LabelCoder)}


class LanguageModel:
    """θ and the layout of ``count`` symbols; a batch is a range of columns of the lanes."""

    def __init__(self, config: LanguageCoder, count: int, seed: int) -> None:
        self.config, self.count = config, count
        self.architecture = config.architecture()
        self.theta = initial_parameters(self.architecture, seed)
        full, rest = divmod(count, config.lanes)
        self.columns = full + (rest > 0)
        lanes = np.arange(config.lanes)
        self.starts = lanes * full + np.minimum(lanes, rest)
        self.full, self.rest = full, rest

    def fingerprint(self) -> bytes:
        """What the decoder has to start from."""
        return self.theta.numpy().tobytes()

    def batches(self) -> Iterator[range]:
        step = self.config.window
        for first in range(0, self.columns, step):
            yield range(first, min(first + step, self.columns))

    def _positions(self, column: int) -> NDArray[np.int64]:
        # the first `rest` lanes are one symbol longer
        return (self.starts if column < self.full else self.starts[: self.rest]) + column

    def _read(self, column: int, symbols: Symbols, missing: int) -> Tensor:
        column_symbols = torch.full((self.config.lanes,), missing, dtype=torch.int64)
        if column >= 0:
            positions = self._positions(column)
            column_symbols[: len(positions)] = torch.from_numpy(symbols[positions]).long()
        return column_symbols

    def predict(self, batch: range, symbols: Symbols, exchange: Exchange) -> None:
        prefix = Prefix()
        for column in batch:
            previous = self._read(column - 1, symbols, missing=0)
            scores = logits(self.architecture, self.theta, previous[:, None], prefix)[:, 0]
            positions = self._positions(column)
            exchange(scores.softmax(-1).numpy()[: len(positions)], positions)

    def loss(self, batch: range, symbols: Symbols) -> tuple[Tensor, int]:
        inputs = torch.stack([self._read(c - 1, symbols, missing=0) for c in batch], 1)
        targets = torch.stack([self._read(c, symbols, missing=PAD) for c in batch], 1)
        count = int((targets != PAD).sum())
        scores = logits(self.architecture, self.theta, inputs)
        return token_losses(scores, targets).sum() / count, count


class LabelModel:
    """θ and the shared inputs of ``count`` labels; a batch is a range of labels."""

    def __init__(self, config: LabelCoder, count: int, seed: int) -> None:
        self.config, self.count = config, count
        self.inputs = label_inputs(count, config.dimension, seed)
        self.theta = perceptron.initial_parameters("linear", config.dimension, seed=seed)

    def fingerprint(self) -> bytes:
        return self.theta.numpy().tobytes() + self.inputs.numpy().tobytes()

    def batches(self) -> Iterator[range]:
        for first in range(0, self.count, self.config.batch):
            yield range(first, min(first + self.config.batch, self.count))

    def predict(self, batch: range, symbols: Symbols, exchange: Exchange) -> None:
        # labels are no input of each other: a batch is one call
        outputs = self.inputs[batch.start : batch.stop] @ self.theta
        probabilities = torch.stack([-outputs, outputs], 1).sigmoid().numpy()
        exchange(probabilities, np.arange(batch.start, batch.stop))

    def loss(self, batch: range, symbols: Symbols) -> tuple[Tensor, int]:
        signs = 2.0 * torch.from_numpy(symbols[batch.start : batch.stop]).float() - 1
        outputs = self.inputs[batch.start : batch.stop] @ self.theta
        return softplus(-signs * outputs).mean(), len(batch)


def label_inputs(count: int, dimension: int, seed: int) -> Tensor:
    """The inputs that both sides of a :class:`LabelCoder` know: N(0, 3I), shape (count, D)."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return (draw * 3**0.5).float()
