"""From stories to the training, desired and test examples of the language model (App. D).

The paper does not say how its examples of 64 tokens are cut. Here an example is
L + 1 consecutive tokens within one story, the next one begins where it ends, and
what is left at the story's end is not used. Each story's examples are in one
set only; a text that occurs twice counts as one story.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llbook.data.perturb import edit_distance, perturb
from llbook.data.stories import Corpus
from llbook.data.tokens import PAD, Vocabulary, build_vocabulary, encode_texts

__all__ = ["StoryExamples", "story_examples"]


@dataclass(frozen=True)
class StoryExamples:
    """Three sets of examples, and what was done to the training ones.

    Attributes:
        training: int64, shape (N, L + 1); spoilt examples that became shorter end in PAD.
        desired, test: int64, shape (K, L + 1).
        clean: the training examples before they were spoilt, shape (N, L + 1).
        perturbed: which were, shape (N,).
        edits: Levenshtein distance between the two, shape (N,).
        story: index of the example's story in the corpus, shape (N,).
        vocabulary: the V types.
        unknown_share: share of UNK among the tokens of ``clean``.
        used: number of stories that at least one example was cut from.
    """

    training: Tensor
    desired: Tensor
    test: Tensor
    clean: Tensor
    perturbed: NDArray[np.bool_]
    edits: NDArray[np.int64]
    story: NDArray[np.int64]
    vocabulary: Vocabulary
    unknown_share: float
    used: int


def story_examples(
    corpus: Corpus,
    *,
    size: int,
    desired_size: int,
    length: int,
    vocabulary: int,
    perturbed_share: float = 0.5,
    perturbations: int = 20,
    seed: int = 0,
) -> StoryExamples:
    """Cut, split, tokenise and spoil.

    Stories are put in an order drawn by ``seed``; from its front the test set is
    filled, then the desired set, then the training set. So a larger N extends a
    smaller one, and the other two stay as they are. The vocabulary counts the
    stories that the training set may use.

    Args:
        corpus: the stories.
        size: N.
        desired_size: K.
        length: L, predicted tokens of an example.
        vocabulary: V.
        perturbed_share: share of the training examples that are spoilt, to the
            nearest whole number of examples.
        perturbations: edits of each of them.
        seed: of the order, the choice and the edits, each with a stream of its own.

    Raises:
        ValueError: too few examples in the corpus, with how many there are; too few
            token types; a share outside [0, 1], a size or a length below 1.
    """
    for name, least, given in (
        ("size", 1, size),
        ("desired_size", 1, desired_size),
        ("length", 1, length),
        ("perturbations", 0, perturbations),
    ):
        if given < least:
            raise ValueError(f"{name} must be at least {least}, got {given}")
    if not 0 <= perturbed_share <= 1:
        raise ValueError(f"perturbed_share must be from 0 to 1, got {perturbed_share}")
    texts: dict[str, int] = {}
    for index, text in enumerate(corpus.texts):
        texts.setdefault(text, index)
    stories = list(texts.values())
    encoded = encode_texts(list(texts))
    order = np.random.default_rng([seed, 0]).permutation(len(stories))
    counts = np.array([len(encoded[i]) // (length + 1) for i in order])
    ends, at = [], 0
    for name, wanted in (("test", desired_size), ("desired", desired_size), ("training", size)):
        found = counts[at:].cumsum()
        if len(found) == 0 or found[-1] < wanted:
            raise ValueError(
                f"asked for {wanted} {name} examples of {length + 1} tokens, but the corpus "
                f"({corpus.name}, {len(stories)} stories) has {counts.sum()} in all and "
                f"{int(found[-1]) if len(found) else 0} are left for this set"
            )
        at += int(np.searchsorted(found, wanted)) + 1
        ends.append(at)
    first_training = ends[1]
    kept = build_vocabulary((encoded[i] for i in order[first_training:]), vocabulary)

    def cut(positions: Iterable[int], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows, origin = [], []
        for position in positions:
            tokens = kept.number(encoded[order[position]])
            for start in range(0, len(tokens) - length, length + 1):
                rows.append(tokens[start : start + length + 1])
                origin.append(stories[order[position]])
        return np.array(rows[:most], dtype=np.int64), np.array(origin[:most], dtype=np.int64)

    test, _ = cut(range(ends[0]), desired_size)
    desired, _ = cut(range(ends[0], ends[1]), desired_size)
    clean, story = cut(range(ends[1], ends[2]), size)

    chosen = np.random.default_rng([seed, 1]).permutation(size)[: round(perturbed_share * size)]
    perturbed = np.zeros(size, dtype=bool)
    perturbed[chosen] = True
    training, edits = clean.copy(), np.zeros(size, dtype=np.int64)
    for n in chosen:
        spoilt = perturb(
            clean[n], perturbations, kept.unknown, np.random.default_rng([seed, 2, int(n)])
        )
        training[n] = PAD
        training[n, : len(spoilt)] = spoilt
        edits[n] = edit_distance(clean[n], spoilt)
    return StoryExamples(
        training=torch.from_numpy(training),
        desired=torch.from_numpy(desired),
        test=torch.from_numpy(test),
        clean=torch.from_numpy(clean),
        perturbed=perturbed,
        edits=edits,
        story=story,
        vocabulary=kept,
        unknown_share=float((clean == kept.unknown).mean()),
        used=ends[2],
    )
