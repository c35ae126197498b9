"""What an experiment collects of its search, in a form that a checkpoint can hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Collector"]


class Collector:
    """Scalars and curves of every measured policy, and tensors of single ones.

    A :class:`llbook.optimal.search.Recorder`: offered to a search as its callback, by a
    subclass that says what to collect, it is stored with each checkpoint and restored
    from it, exactly.

    Attributes:
        rows: one dictionary of scalars per measured policy.
        curves: name → one tensor per measured policy, all of one shape.
        last: name → a tensor.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.curves: dict[str, list[Tensor]] = {}
        self.last: dict[str, Tensor] = {}

    def append(self, row: dict[str, float], **curves: Tensor) -> None:
        """Take in what was measured of one policy; curves are kept in float32, on the CPU."""
        self.rows.append(row)
        for name, curve in curves.items():
            self.curves.setdefault(name, []).append(curve.float().cpu())

    def tensors(self) -> dict[str, Tensor]:
        table = {
            f"rows.{name}": torch.tensor([row[name] for row in self.rows], dtype=torch.float64)
            for name in self.rows[0]
        }
        table |= {f"curves.{name}": torch.stack(list_) for name, list_ in self.curves.items()}
        return table | {f"last.{name}": tensor.cpu() for name, tensor in self.last.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        columns: dict[str, list[float]] = {}
        for key, tensor in tensors.items():
            kind, name = key.split(".", 1)
            if kind == "rows":
                columns[name] = tensor.tolist()
            elif kind == "curves":
                self.curves[name] = list(tensor)
            else:
                self.last[name] = tensor
        self.rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """``history_<name>`` (E,) of the rows' scalars, the curves (E, …), the last tensors."""
        arrays = {
            f"history_{name}": np.array([row[name] for row in self.rows]) for name in self.rows[0]
        }
        arrays |= {name: torch.stack(list_).numpy() for name, list_ in self.curves.items()}
        return arrays | {name: tensor.cpu().numpy() for name, tensor in self.last.items()}
