"""The same small search for every method: each value of its knob once, on the desired examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llbook.measures.objective import loss_auc
from llbook.optimal.inner import PLAIN, Inner
from llbook.selection.methods import Method
from llbook.selection.selector import Selection, Selector, select
from llbook.tasks.task import Task

__all__ = ["Tuned", "tuned"]


@dataclass(frozen=True)
class Tuned:
    """What :func:`tuned` returns.

    Attributes:
        selection: the best of the trials.
        selector: the one that made it.
        value: of its knob; None where there is none.
        evaluations: cost in gradient evaluations of all trials that came to their end.
    """

    selection: Selection
    selector: Selector
    value: float | None
    evaluations: float


def tuned(task: Task, method: Method, steps: int, *, inner: Inner = PLAIN, **fixed: Any) -> Tuned:
    """The trial of a method with the least area under the desired-loss curve.

    Args:
        task: the learning problem.
        method: what is tuned.
        steps: T.
        inner: the training, see :func:`~llbook.selection.selector.select`.
        fixed: further arguments of its selector.

    Raises:
        FloatingPointError: at no value the training has a finite area.
        SelectionError: as :func:`~llbook.selection.selector.select`.
    """
    best: Tuned | None = None
    least, spent = float("inf"), 0.0
    failure = FloatingPointError(
        "at no value of the knob is the area on the desired examples finite"
    )
    for value in method.values or (None,):
        selector = method.make(**({} if value is None else {method.knob: value}), **fixed)
        try:
            selection = select(task, selector, steps, inner=inner)
        except FloatingPointError as error:
            failure = error
            continue
        spent += selection.evaluations
        area = loss_auc(task.trajectory_losses(selection.process.trajectory, task.desired))
        if area < least:
            least, best = area, Tuned(selection, selector, value, 0.0)
    if best is None:
        raise failure
    return Tuned(best.selection, best.selector, best.value, spent)
