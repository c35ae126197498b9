"""Arrays of a language-model run made up for the purpose, and the run around them."""

import math

import numpy as np

from llbook.experiments.language_model import LanguageModelConfig
from llbook.runs.run import Run

SIZE, STEPS, EPOCHS = 24, 40, 6


def made_up(*, fall=0.08, size=SIZE, steps=STEPS, epochs=EPOCHS, seed=0):
    """Arrays of a run whose area falls by the share ``fall`` over the search."""
    draw = np.random.default_rng(seed)
    progress = np.linspace(0, 1, epochs)
    old = 3 + 3 * np.exp(-np.arange(steps + 1) / 10)
    curves = old[None] * (1 - fall * progress)[:, None]
    perturbed = np.arange(size) % 2 == 0
    auc = curves[:, 1:].mean(1)
    weight = draw.exponential(size=(steps, size)) * np.where(perturbed, 0.5, 1.5)
    weight[:, :3] = 0
    weight /= weight.sum(1, keepdims=True)
    similarity = (0.5 + 3 * progress)[:, None] * np.linspace(1, 0.2, steps)
    first = next((t for t in range(1, steps + 1) if curves[-1][t] <= old[-1]), math.nan)
    history = {
        "epoch": np.arange(epochs),
        "objective": auc * steps,
        "auc": auc,
        "desired_auc": auc * (1 - 0.02 * progress),
        "cr": np.log(500) / auc,
        "cr_mixed": np.log2(500) / auc,
        "ar": np.array([1.0] * (epochs - 1) + [steps / first]),
        "gap": 1 - 0.5 * progress,
        "relative_gap": 2 - progress,
        "similarity": similarity.mean(1),
        "future_similarity": 2 * similarity.mean(1),
        "undefined_share": np.zeros(epochs),
        "zero_weight_share": 0.97 * progress,
        "support_share": np.linspace(1, (weight > 0).mean(), epochs),
    }
    columns = np.arange(0, steps, 2)
    shares = (0.5 + 0.3 * progress)[:, None] * np.ones(steps)
    levels = np.array([0.0, 0.5, 1.0])
    return {f"history_{name}": column for name, column in history.items()} | {
        "curve_epochs": np.arange(epochs),
        "curve_steps": np.arange(steps + 1),
        "test_curves": curves,
        "similarity": similarity,
        "future_similarity": 2 * similarity,
        "first_desired": curves[0],
        "last_desired": curves[-1],
        "gap": np.ones(steps),
        "relative_gap": np.ones(steps),
        "future_mean": np.ones(steps),
        "support": (weight > 0).sum(1),
        "idle": np.full(steps, 10),
        "idle_without_weight": np.full(steps, 9),
        "heat_map": weight.T[:, columns],
        "heat_map_examples": np.arange(size),
        "heat_map_steps": columns,
        "perturbed": perturbed,
        "edits": np.where(perturbed, draw.integers(1, 9, size), 0),
        "story": np.arange(size) // 2,
        "clean_weight": shares,
        "example_weight": weight.sum(0),
        "example_contribution": draw.normal(size=size),
        "example_hash": np.arange(size, dtype=np.uint64),
        "weight_spread": np.quantile(weight * size, levels, axis=1),
        "weight_quantiles": levels,
    }


def run_of(arrays, *, corpus="file", **changes):
    config = LanguageModelConfig.from_flat(changes).model_dump() | {
        "corpus_name": corpus,
        "corpus_sha256": "ab" * 32,
        "corpus_stories": 1234,
    }
    provenance = {
        "seconds": 2.5,
        "date": "2026-01-31T00:00:00+00:00",
        "device": "a CPU, 2 cores",
        "commit": None,
        "dirty": None,
        "versions": {"torch": "2.13.0"},
    }
    return Run("language_model-0", "language_model", config, provenance, arrays)
