"""The page that holds every figure, table and numbered claim of the paper against the runs of this book.

What is proved or drawn is told from what is measured. A measured item has the verdict that its
rule gives in one setting, declared beforehand; how the others fare, all items of a setting
together, stands beside it. Of runs below the paper's scale a language model's decide from
:data:`LONG` steps on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llbook.compression.codec import Trace
from llbook.compression.text import decode_text, encode_text
from llbook.data.grammar import grammar_stories
from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.parameters import ParameterError, Parameters
from llbook.report import language_model, paper, perceptron, scaling
from llbook.report.numbers import flat_parameters, number, spread, table, values
from llbook.report.verdicts import (
    MARKS,
    Verdict,
    Word,
    graded,
    joint_table,
    learned_below,
    similarity_rises,
    zero_weights,
)
from llbook.runs.run import Run

__all__ = [
    "Code",
    "CompanionConfig",
    "anchor",
    "claims",
    "code",
    "entries_table",
    "figures",
    "gradient_difference",
    "joint",
    "laws",
    "longest",
    "records_table",
    "rows_of_figures",
    "statements_table",
    "summary",
]

Records = Mapping[str, Sequence[Run]]

PRINTED = "as-printed"
"""The recorded setting of the perceptron that is the paper's own."""

LONG = 500
"""From so many steps on a run of the language model decides, be the model as small as it may."""

EQUAL = 10.0
"""Contributions count as equal where their mean is so many times their deviation."""

_EXPERIMENTS = {
    "perceptron": (perceptron, paper.PERCEPTRON),
    "language model": (language_model, paper.LANGUAGE_MODEL),
}

STATEMENTS = {
    "A.1": "proved, up to 2 bits",
    "3.1": (
        "proved where the state depends on the totals of the weights alone; in general with a "
        "remainder, and with λ for ∇L exactly"
    ),
    "B.1": "proved, for 0 < t < T",
    "4.1": "proved, as the law; with λ exactly",
    "4.2": "proved, with a bound in the place of the limit",
    "4.3": (
        "proved that full support is confined to a set of measure zero, not that θ stays off it"
    ),
    "1": "drawn from a run",
    "3A": "drawn",
    "12": "drawn",
}
"""What no run decides: under which conditions an item is proved here, or that it is drawn."""


class CompanionConfig(Parameters):
    """The page that holds the paper against the book."""

    profile: Literal["smoke", "laptop", "paper"] = Field(
        "laptop", description="whose run of each experiment is shown as this build's"
    )
    setting: str = Field(
        "headline", description="the perceptron's recorded setting that its verdicts are of"
    )


def statements_table() -> str:
    """:data:`STATEMENTS` as a MyST table."""
    rows = [(key, paper.ITEMS[key], text) for key, text in STATEMENTS.items()]
    return table(
        ["item", "in the book", "the paper", "here"],
        [
            [f'<span id="{anchor(key)}">{item.title}</span>', item.place, item.printed, text]
            for key, item, text in rows
        ],
    )


def anchor(key: str) -> str:
    """The id of an item's row on the companion page."""
    return f"item-{key.lower().replace('.', '-')}"


def rows_of_figures() -> dict[str, str]:
    """Name of a figure → the id of the row that speaks of it."""
    return {
        name: anchor(key)
        for key, item in paper.ITEMS.items()
        for name in re.findall(r"{numref}`([\w-]+)`", item.place)
    }


def entries_table(found: Sequence[Verdict]) -> str:
    """Verdicts as a MyST table, with the places of their items in the book."""
    rows = []
    for verdict in found:
        item = paper.ITEMS[verdict.key]
        word = f"{MARKS[verdict.word]} {verdict.word}"
        title = f'<span id="{anchor(verdict.key)}">{item.title}</span>'
        rows.append([title, item.place, item.printed, verdict.ours, word])
    return table(["item", "in the book", "the paper", "the companion", "verdict"], rows)


def summary(found: Sequence[Verdict]) -> str:
    """How many items have which verdict, in one sentence."""
    words = [verdict.word for verdict in found]
    counts = ", ".join(f"{words.count(word)} *{word}*" for word in Word if word in words)
    return f"Of {len(found)} items that runs decide: {counts}."


def joint(experiment: str, records: Records) -> str:
    """Figures 4 to 10 in every recorded setting, as :func:`joint_table` has it."""
    report, _ = _EXPERIMENTS[experiment]
    return joint_table(
        {f"`{name}`": report.verdicts(_arrays(runs)) for name, runs in records.items()}
    )


def longest(records: Records) -> str:
    """The recorded setting with the most steps; of those, with the most training examples.

    Of those searched in full, with as many updates as the paper's, where there are such.
    """

    def scale(name: str) -> tuple[bool, int, int]:
        config = records[name][0].config
        whole = config["search"]["epochs"] >= paper.LADDER_EPOCHS
        return whole, config["training"]["steps"], config["data"]["size"]

    return max(records, key=scale)


def figures(
    experiment: str, records: Records, setting: str, live: Run, profile: str
) -> list[Verdict]:
    """Figures 4 to 10 in the declared setting; what this build's run has is shown beside it.

    Where the records of the setting lack what an item takes, this build's run decides, if it is
    of the same setting.

    Args:
        experiment: ``"perceptron"`` or ``"language model"``.
        records: its recorded settings.
        setting: the declared one.
        live: the run of this build.
        profile: the one that this build was made at.

    Raises:
        ParameterError: no such setting.
    """
    report, printed = _EXPERIMENTS[experiment]
    runs = _declared(records, setting)
    own = {verdict.key: verdict for verdict in report.verdicts([live.arrays])}
    sizes = runs[0].config["data"] | runs[0].config["training"]
    full = all(sizes[name] >= least for name, least in printed.scale.items())
    as_printed = full and (experiment != "perceptron" or setting == PRINTED)
    decides = full or (experiment != "perceptron" and sizes["steps"] >= LONG)
    same = flat_parameters(live) | {"seed": 0} == flat_parameters(runs[0]) | {"seed": 0}
    found = []
    for verdict in report.verdicts(_arrays(runs)):
        mine = own[verdict.key]
        word = mine.word if same and verdict.word == Word.UNDEFINED else verdict.word
        lines = (
            f"{verdict.ours}: `{setting}`" + f", {verdict.word}" * (not decides),
            f"{mine.ours}, {mine.word}: this build, `{profile}`",
        )
        found.append(Verdict(verdict.key, "<br>".join(lines), _said(word, decides, as_printed)))
    return found


def laws(records: Records, rungs: Sequence[str]) -> list[Verdict]:
    """What the paper says of scaling laws, held against the recorded ladder, below its scale.

    Args:
        records: setting → runs of the language model.
        rungs: the settings of the ladder, in order.

    Raises:
        ParameterError: no such setting.
        ValueError: no rung at all.
    """
    if not rungs:
        raise ValueError("rungs: expected at least one setting of the ladder, got none")
    for name in rungs:
        _declared(records, name)
    fits = [[scaling.scaling_of(run.arrays, draws=1) for run in records[name]] for name in rungs]
    where = f"ladder of `{rungs[0]}` to `{rungs[-1]}`"
    decides = max(run.steps for rung in fits for run in rung) >= LONG
    return [
        Verdict(
            v.key,
            f"{v.ours}{'' if decides else f', {v.word}'}: {where}",
            _said(v.word, decides, False),
        )
        for v in scaling.verdicts(fits)
    ]


@dataclass(frozen=True)
class Code:
    """A text coded by a model that trains on it, and decoded again.

    Attributes:
        symbols: how many symbols were coded.
        excess: bits of the range coder over Σ_t B·L_t, minus one.
        same: whether the decoded text is the text.
    """

    symbols: int
    excess: float
    same: bool


def code(count: int = 10, seed: int = 0) -> Code:
    """Theorem A.1 and Algorithms 1 and 2 on ``count`` stories of the built-in grammar: a second or so."""
    text, trace = "\n\n".join(grammar_stories(count, seed)), Trace()
    stream = encode_text(text, seed=seed, trace=trace, lanes=4, window=16, hidden=16)
    excess = trace.written[-1] / trace.total_bits - 1
    return Code(sum(trace.symbols), excess, decode_text(stream, seed=seed) == text)


def gradient_difference(seed: int = 0) -> float:
    """Eq. 22 on a small perceptron in float64, against autograd through the unrolled training.

    Returns:
        ‖difference‖ / ‖∂J/∂γ‖ over all (t, n).
    """
    config = PerceptronConfig.from_flat(
        {"seed": seed, "size": 32, "dimension": 8, "desired_size": 32, "steps": 40}
        | {"precision": "float64", "device": "cpu"}
    )
    task = build_task(config)
    policy = constant_policy(task, config.training.steps)
    process = train(task, policy)
    one, other = (
        policy_gradient(task, policy, process, strategy=strategy)
        for strategy in ("closed-form", "unrolled")
    )
    return float((one - other).norm() / other.norm())


def claims(records: Records, setting: str, coded: Code, difference: float) -> list[Verdict]:
    """What can be measured of the paper's theorems, properties and algorithms, and Figure 3B.

    The rules. Theorem A.1: the coder within 1% of Σ B·L_t. Eq. 22: 1e-10 from autograd. Theorem
    3.1: mean SIM on the desired examples above :data:`EQUAL` in every run, in part above 1.
    Property 4.1 as Figure 8, :func:`~llbook.report.verdicts.zero_weights`. Property 4.2: of the
    learned (n, t), 90% have less than a hundredth of the largest weight (in part 50%). Property
    4.3: some γ = 0 at 90% of the steps (50%). Figure 3B:
    :func:`~llbook.report.verdicts.similarity_rises`.

    Args:
        records: recorded settings of the perceptron.
        setting: the declared one.
        coded: of :func:`code`.
        difference: of :func:`gradient_difference`.

    Raises:
        ParameterError: no such setting.
    """
    recorded = _declared(records, setting)
    runs, size = _arrays(recorded), recorded[0].config["data"]["size"]
    test, desired, future = (
        " → ".join(spread(values(runs, f"{name}similarity", place), 2) for place in (0, -1))
        for name in ("", "desired_", "future_")
    )
    gap = spread(values(runs, "relative_gap"), 2)
    learned = learned_below(runs, 0.01)
    dropped = float(np.mean([np.mean(run["support"] < size) for run in runs]))
    measured = [
        Verdict(
            "3.1",
            f"mean SIM {test} on the test, {desired} on the desired examples; with λ {future}; "
            f"under policies whose relative first-order gap is {gap}, where an optimum has 0",
            graded(float(np.min(values(runs, "desired_similarity"))), EQUAL, 1),
        ),
        zero_weights("4.1", runs),
        Verdict(
            "4.2",
            "no such example"
            if np.isnan(learned)
            else f"{100 * learned:.0f}% have less than a hundredth of the largest weight",
            graded(learned, 0.9, 0.5),
        ),
        Verdict(
            "4.3", f"some γ = 0 at {100 * dropped:.0f}% of the steps", graded(dropped, 0.9, 0.5)
        ),
        similarity_rises("3B", runs, examples="desired_"),
    ]
    excess = f"{100 * coded.excess:.2f}% above Σ B·L_t over {coded.symbols:,} symbols"
    return [
        Verdict("A.1", f"range coder {excess}, computed here", _holds(coded.excess < 0.01)),
        Verdict(
            "algorithms",
            f"decoded {'alike' if coded.same else 'otherwise'}, computed here",
            _holds(coded.same),
        ),
        Verdict(
            "eq-22",
            f"{number(difference, 2)} from autograd, relative, computed here",
            _holds(difference < 1e-10),
        ),
        *(
            replace(v, ours=f"{v.ours}: `{setting}`", word=_said(v.word, True, setting == PRINTED))
            for v in measured
        ),
    ]


def records_table(experiments: Mapping[str, Records]) -> str:
    """Names of the recorded settings, what they are, how many seeds, and the identities of their runs."""
    rows = []
    for experiment, settings in experiments.items():
        report, _ = _EXPERIMENTS[experiment]
        for name, runs in settings.items():
            seeds = ", ".join(str(run.config["seed"]) for run in runs)
            ids = "<br>".join(f"`{run.id}`" for run in runs)
            rows.append([f"`{name}`", experiment, report.setting_label(runs), seeds, ids])
    return table(["record", "experiment", "setting", "seeds", "runs"], rows)


def _arrays(runs: Sequence[Run]) -> list[dict[str, NDArray[Any]]]:
    return [run.arrays for run in runs]


def _declared(records: Records, setting: str) -> Sequence[Run]:
    if setting not in records:
        raise ParameterError(f"setting: got {setting!r}; expected one of {', '.join(records)}")
    return records[setting]


def _holds(so: bool) -> Word:
    return Word.REPRODUCED if so else Word.FAILED


def _said(word: Word, decides: bool, as_printed: bool) -> Word:
    """A rule's word as the page has it, of runs that are long enough to decide, as printed or not."""
    if word == Word.REPRODUCED:
        return word if as_printed else Word.CHANGED
    return word if decides else Word.SMALLER
