"""The live perceptron: an element whose script (``live.js``) trains again when the reader moves an example."""

from __future__ import annotations

from collections.abc import Mapping

from IPython.display import HTML
from matplotlib.figure import Figure

from llbook.data.teacher import Labelled
from llbook.experiments.live import GRID, REACH, LiveConfig, Trained
from llbook.figures import style
from llbook.figures.explorer import element
from llbook.optimal.methods import mirror
from llbook.optimal.starts import CHOSEN, EQUAL_SHARE
from llbook.tasks.perceptron import Perceptron

__all__ = ["live", "still"]

LINES = {
    "equal": ("equal weights", style.CONVENTIONAL, "-"),
    "greedy": ("greedy", style.GREEDY, ":"),
    "searched": ("searched", style.NEAR_OPTIMAL, "--"),
}


def live(
    config: LiveConfig, training: Labelled, desired: Labelled, task: Perceptron, *, name: str
) -> HTML:
    """Examples to be dragged and relabelled, the loss curves of three policies, and their weights.

    The script has all constants of the package's search from here.

    Args:
        config: lengths and rates.
        training, desired: examples at rest, in the plane.
        task: of these examples.
        name: of the element, unique on its page.
    """
    label = "A perceptron in the plane"
    data = {
        "label": label,
        "reach": REACH,
        "grid": GRID,
        "inputs": training.inputs.numpy(),
        "labels": training.labels.int().numpy(),
        "desired": desired.inputs.numpy(),
        "desiredLabels": desired.labels.int().numpy(),
        "initial": task.initial.numpy(),
        "eta": config.learning_rate,
        "steps": config.steps,
        "chosen": config.chosen,
        "evaluations": config.evaluations,
        "rate": config.rate,
        "start": [CHOSEN, EQUAL_SHARE],
        "memories": [mirror.FIRST, mirror.SECOND],
        "least": mirror.LEAST[task.initial.dtype],
    }
    return element("live", name, label, data, digits=17)


def still(training: Labelled, desired: Labelled, trained: Mapping[str, Trained]) -> Figure:
    """The page at rest: examples with their weight under the searched policy, and the loss curves."""
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.9))
    total = trained["searched"].policy.mean(0) * len(training.labels)
    for label, marker, colour in ((1, "o", style.NEAR_OPTIMAL), (-1, "s", style.PAPER)):
        far, own = desired.labels == label, training.labels == label
        left.scatter(*desired.inputs[far].T, s=12, marker=marker, color=colour, alpha=0.3)
        places, name = training.inputs[own].T, f"label {label:+d}".replace("-", "−")
        left.scatter(*places, s=12 + 110 * total[own], color=colour, alpha=0.35, linewidth=0)
        left.scatter(*places, s=34, marker=marker, color=colour, label=name)
    left.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xlabel="z₁", ylabel="z₂", aspect="equal")
    left.legend()
    for name, (said, colour, dashes) in LINES.items():
        right.plot(trained[name].losses, color=colour, linestyle=dashes, label=said)
    right.set(xlabel="step t", ylabel="desired loss (nats)", ylim=(0, None))
    right.legend()
    return figure
