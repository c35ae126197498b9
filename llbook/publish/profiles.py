"""What each profile sets in each notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["PROFILES", "overrides"]

PROFILES = ("smoke", "laptop", "paper")


def _table_2_row_1() -> dict[str, Any]:
    from llbook.experiments.language_model import TABLE_2_ROW_1  # with PyTorch, which takes time

    return TABLE_2_ROW_1


# What a profile changes in a notebook's own defaults, which are those of `laptop`.
_OVERRIDES: dict[str, dict[str, dict[str, Any] | Callable[[], dict[str, Any]]]] = {
    "smoke": {
        "intro": {"size": 64, "dimension": 8, "desired_size": 64, "steps": 40, "epochs": 12},
        "objective": {"size": 64, "steps": 40},
        "compression": {"story_count": 12},
        "compressors": {"story_count": 12, "label_count": 256},
        "optimal_policy": {"size": 64, "dimension": 8, "steps": 30},
        "gradient_flow": {"halvings": 4},
        "learning_law": {
            "size": 64,
            "dimension": 8,
            "desired_size": 64,
            "steps": 60,
            "epochs": 60,
        },
        "maximum_principle": {
            "size": 6,
            "dimension": 3,
            "desired_size": 32,
            "intervals": 24,
            "removals": 30,
        },
        "singular_arcs": {"intervals": 40},
        "shared_arcs": {"intervals": 40, "finest": 96},
        "small_steps": {
            "size": 6,
            "dimension": 3,
            "desired_size": 32,
            "steps": 30,
            "intervals": 20,
            "halvings": 2,
        },
        "first_order_points": {
            "size": 6,
            "dimension": 3,
            "desired_size": 32,
            "steps": 30,
            "starts": 3,
        },
        "perceptron": {
            "size": 128,
            "dimension": 16,
            "desired_size": 64,
            "steps": 60,
            "epochs": 12,
            "step_size": 5e-4,
            "measure_every": 2,
        },
        "perceptron_records": {"size": 128, "dimension": 16, "steps": 60},
        "near_optimal": {
            "size": 48,
            "dimension": 4,
            "desired_size": 32,
            "steps": 20,
            "epochs": 12,
            "small_size": 6,
            "small_steps": 6,
        },
        "desired_to_test": {
            "size": 48,
            "dimension": 4,
            "desired_size": 16,
            "steps": 20,
            "epochs": 12,
        },
        "language_model": {
            "corpus": "grammar",
            "size": 24,
            "desired_size": 16,
            "length": 12,
            "vocabulary": 120,
            "hidden": 8,
            "heads": 2,
            "steps": 12,
            "epochs": 3,
            "measure_every": 1,
        },
        "scaling_laws": {
            "corpus": "grammar",
            "size": 24,
            "desired_size": 16,
            "length": 12,
            "vocabulary": 120,
            "hidden": 8,
            "heads": 2,
            "steps": 24,  # fewer leave too few points for a law
            "epochs": 2,
            "measure_every": 1,
            "draws": 20,
        },
        "tuned_rate": {
            "corpus": "grammar",
            "size": 24,
            "desired_size": 16,
            "length": 12,
            "vocabulary": 120,
            "hidden": 8,
            "heads": 2,
            "steps": 12,
            "places": 3,
        },
        "explorer": {
            "size": 64,
            "dimension": 8,
            "desired_size": 64,
            "steps": 40,
            "epochs": 12,
            "step_size": 5e-2,
            "lm_corpus": "grammar",
            "lm_size": 24,
            "lm_desired_size": 16,
            "lm_length": 12,
            "lm_vocabulary": 120,
            "lm_hidden": 8,
            "lm_heads": 2,
            "lm_steps": 12,
            "lm_epochs": 3,
        },
        "yardstick": {
            "size": 64,
            "dimension": 8,
            "desired_size": 64,
            "steps": 20,
            "epochs": 14,
        },
        "inner_optimisers": {
            "size": 24,
            "dimension": 4,
            "desired_size": 32,
            "steps": 20,
            "batch": 8,
            "small_epochs": 30,
        },
        "inner_runs": {
            "size": 24,
            "dimension": 4,
            "desired_size": 32,
            "steps": 20,
            "epochs": 8,
            "batch": 8,
            "orders": 3,
            "draws": 8,
        },
        "companion": {"profile": "smoke"},
    },
    "laptop": {},
    "paper": {
        "companion": {"profile": "paper"},
        "perceptron": {"recompute_records": True},
        "language_model": _table_2_row_1,
        "scaling_laws": _table_2_row_1,
    },
}


def overrides(profile: str, notebook: str) -> dict[str, Any]:
    """The flat parameters that ``profile`` sets in the notebook of this name.

    Raises:
        ValueError: an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    found = _OVERRIDES[profile].get(notebook, {})
    return dict(found() if callable(found) else found)
