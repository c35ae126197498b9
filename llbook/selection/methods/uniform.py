"""Conventional learning: γ_n = 1/N. Nothing beside the training's own two passes a step."""

from __future__ import annotations

from torch import Tensor

from llbook.selection.selector import Selector, View

__all__ = ["Uniform"]


class Uniform(Selector):
    """Equal weights."""

    def weigh(self, view: View) -> Tensor:
        size = view.task.size
        return view.theta.new_full((size,), 1 / size)
