"""Tokens of the paper's language model: the Mistral-7B vocabulary, cut to its most used types.

The SentencePiece model of Mistral-7B-v0.1 lies in the distribution
``mistral-common``; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["PAD", "Vocabulary", "build_vocabulary", "encode_texts"]

PAD = -1  # outside the vocabulary, so that V counts only what can be predicted


@lru_cache(maxsize=1)
def _pieces() -> Any:
    from sentencepiece import SentencePieceProcessor

    # found, not imported: the package's own imports are not needed
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the tokens need the distribution mistral-common: pip install mistral-common",
            name="mistral_common",
        )
    model = Path(spec.origin).parent / "data" / "tokenizer.model.v1"
    return SentencePieceProcessor(model_file=str(model))


def encode_texts(texts: Sequence[str]) -> list[list[int]]:
    """The full vocabulary's ids (32,000 types) of each text, without begin or end marks."""
    return _pieces().encode(list(texts))


@dataclass(frozen=True)
class Vocabulary:
    """V token types: the V - 2 most frequent ones, UNK and PAD.

    Attributes:
        ids: id in the full vocabulary of each type 0 … V - 3, most frequent first.
    """

    ids: tuple[int, ...]

    @property
    def size(self) -> int:
        """V."""
        return len(self.ids) + 2

    @property
    def unknown(self) -> int:
        """V - 2, the type of everything that was cut."""
        return len(self.ids)

    def number(self, encoded: Sequence[int]) -> list[int]:
        """Ids of the full vocabulary → ids below V."""
        numbers = _numbers(self)
        return [numbers.get(piece, self.unknown) for piece in encoded]

    def encode(self, text: str) -> list[int]:
        """A text as ids below V."""
        return self.number(encode_texts([text])[0])

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as text; what was cut is ``[UNK]``, and what lies beyond is left out.

        Raises:
            ValueError: an id outside [-1, V).
        """
        parts: list[str] = []
        run: list[int] = []
        for number in [*ids, None]:
            if number is not None and not -1 <= number < self.size:
                raise ValueError(f"expected ids from -1 (padding) to {self.size - 1}, got {number}")
            if number is not None and 0 <= number < self.unknown:
                run.append(self.ids[number])
                continue
            if run:
                parts.append(_pieces().decode(run))
                run = []
            if number == self.unknown:
                parts.append("[UNK]")
        return " ".join(parts)


@lru_cache(maxsize=8)
def _numbers(vocabulary: Vocabulary) -> dict[int, int]:
    return {piece: number for number, piece in enumerate(vocabulary.ids)}


def build_vocabulary(encoded: Iterable[Sequence[int]], size: int) -> Vocabulary:
    """The V - 2 most frequent types of texts encoded by :func:`encode_texts`.

    Types of one frequency stand in the order of their ids.

    Raises:
        ValueError: a size below 3, or more than the texts have types for.
    """
    if size < 3:
        raise ValueError(f"a vocabulary needs at least 3 types (UNK and PAD are two), got {size}")
    counts = Counter(piece for ids in encoded for piece in ids)
    if len(counts) < size - 2:
        raise ValueError(
            f"vocabulary: got {size}, but the training text has only {len(counts)} types; "
            f"at most {len(counts) + 2} can be asked for"
        )
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    return Vocabulary(tuple(ranked[: size - 2]))
