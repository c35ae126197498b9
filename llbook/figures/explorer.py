"""The interactive figures of the book: a policy step by step, and the Learning Law in three dimensions.

Each is an element with its data as JSON inside; ``explorer.js``, which every page of the site loads,
draws it. Without that script the element shows a sentence. Nothing is fetched. The weights and
contributions are packed into bytes, so that a page stays light.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from IPython.display import HTML
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from llbook.figures import style
from llbook.figures.theory import LAW_ARROWS

__all__ = [
    "element",
    "explorer",
    "law_3d",
    "pack_signed",
    "pack_weights",
    "still",
    "unpack_signed",
    "unpack_weights",
]

Arrays = Mapping[str, NDArray[Any]]

CURVE_POINTS = 240


def pack_weights(weights: NDArray[Any]) -> tuple[str, list[float]]:
    """Weights as one byte each: the root of their share of the largest of their step.

    A weight comes back within 1/255 of the root of that share; zero comes back as zero, and only
    zero does.

    Args:
        weights: γN ≥ 0, shape (M, S).

    Returns:
        Base64 of S·M bytes, step after step; the largest weight of each step (S,).

    Raises:
        ValueError: a negative weight, or one that is not finite.
    """
    array = np.asarray(weights, dtype=float)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError("weights must be finite and at least 0")
    top = array.max(0)
    share = np.sqrt(np.divide(array, top, out=np.zeros_like(array), where=top > 0))
    codes = np.where(array > 0, np.clip(np.rint(255 * share), 1, 255), 0)
    return _base64(codes), top.tolist()


def unpack_weights(text: str, top: list[float]) -> NDArray[np.float64]:
    """The inverse of :func:`pack_weights`, shape (M, S)."""
    codes = _codes(text, len(top))
    return np.asarray((codes / 255) ** 2 * np.array(top))


def pack_signed(numbers: NDArray[Any]) -> tuple[str, list[float]]:
    """Numbers of either sign as one byte each, in units of 1/127 of the largest size of their step.

    Zero and positive numbers do not become negative, nor negative ones positive: a number that would
    round to zero takes the next code of its own sign.

    Args:
        numbers: shape (M, S).

    Returns:
        Base64 of S·M bytes (128 is zero), step after step; the largest size of each step (S,).

    Raises:
        ValueError: a number that is not finite.
    """
    array = np.asarray(numbers, dtype=float)
    if not np.isfinite(array).all():
        raise ValueError("numbers must be finite")
    top = np.abs(array).max(0)
    share = np.divide(array, top, out=np.zeros_like(array), where=top > 0)
    codes = np.rint(127 * share)
    codes = np.where((codes == 0) & (array != 0), np.sign(array), codes)
    return _base64(codes + 128), top.tolist()


def unpack_signed(text: str, top: list[float]) -> NDArray[np.float64]:
    """The inverse of :func:`pack_signed`, shape (M, S)."""
    return np.asarray((_codes(text, len(top)) - 128) / 127 * np.array(top))


def explorer(run: Arrays, *, name: str, label: str) -> HTML:
    """A policy step by step: a slider moves through the training, three pictures and a text follow it.

    Args:
        run: arrays of :func:`llbook.experiments.explorer.sample`, with ``perturbed`` where there is one.
        name: of the element, unique on its page.
        label: what is explored, for those who cannot see it.
    """
    weights, weight_tops = pack_weights(run["weights"])
    contribution, contribution_tops = pack_signed(run["contributions"])
    length = len(run["near_optimal"])
    points = np.unique(np.linspace(0, length - 1, CURVE_POINTS).round().astype(int))
    steps = run["steps"]
    data = {
        "label": label,
        "steps": steps,
        "length": length - 1,
        "curve": points,
        "nearCurve": run["near_optimal"][points],
        "evenCurve": run["conventional"][points],
        "near": run["near_optimal"][steps],
        "even": run["conventional"][steps],
        "support": run["support"],
        "mean": run["mean"],
        "similarity": run["similarity"],
        "idle": run["idle"],
        "idleZero": run["idle_without_weight"],
        "weights": weights,
        "weightTops": weight_tops,
        "contributions": contribution,
        "contributionTops": contribution_tops,
        "perturbed": run["perturbed"].astype(int) if "perturbed" in run else None,
    }
    return element("explorer", name, label, data)


def still(run: Arrays) -> Figure:
    """The explorer at rest: both loss curves, and the weights of all steps as a picture."""
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.6))
    left.plot(run["conventional"], color=style.CONVENTIONAL, label="conventional, γ = 1/N")
    left.plot(run["near_optimal"], color=style.NEAR_OPTIMAL, linestyle="--", label="near-optimal")
    left.set(xlabel="step t", ylabel="test loss (nats)", ylim=(0, None))
    left.legend()
    weights, steps = run["weights"], run["steps"]
    image = right.imshow(
        weights,
        aspect="auto",
        interpolation="nearest",
        cmap=style.RATIO_MAP,
        norm=PowerNorm(0.25, 0, max(float(weights.max()), 1e-9)),
        extent=(float(steps[0]), float(steps[-1]) + 1, len(weights), 0),
    )
    right.set(xlabel="step t", ylabel="example, in the order of use")
    right.grid(False)
    figure.colorbar(image, ax=right, label="weight over equal share, γN")
    return figure


def law_3d(name: str = "law-3d") -> HTML:
    """Figure 3A to be turned: three gradients, their heights along ∇L, and the plane of the law."""
    label = "Three arrows for the gradients of examples around an upright arrow for ∇L"
    across, unequal, equal = LAW_ARROWS
    return element("law-3d", name, label, {"across": across, "unequal": unequal, "equal": equal})


def element(kind: str, name: str, label: str, data: Mapping[str, Any], *, digits: int = 4) -> HTML:
    """What a script makes an interactive figure of.

    Args:
        kind: which script.
        name: of the element, unique on its page.
        label: what it shows, for those who cannot see it.
        data: handed to the script; nan is null there.
        digits: significant ones of its numbers.
    """
    # no "<" may end the element early
    plain = _plain(data, digits)
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return HTML(
        f'<div class="interactive" data-kind="{kind}" id="{escape(name)}">'
        f'<p class="interactive-fallback">{escape(label)}: interactive on the page of the book, where scripts run.</p>'
        f'<script type="application/json">{text}</script></div>'
    )


def _plain(value: Any, digits: int) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {name: _plain(inner, digits) for name, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(inner, digits) for inner in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _base64(codes: NDArray[Any]) -> str:
    return base64.b64encode(codes.T.astype(np.uint8).tobytes()).decode("ascii")


def _codes(text: str, steps: int) -> NDArray[np.float64]:
    codes = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return codes.reshape(steps, -1).T.astype(float)
