"""Every figure, table and numbered claim of the paper, held against the runs of this book.

What can be judged by a number is judged by the rules of the three experiments
(:func:`llbook.report.perceptron.verdicts`,
:func:`llbook.report.language_model.verdicts`,
:func:`llbook.report.scaling.verdicts`); what is proved says under which assumptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from llbook.compression.codec import Trace
from llbook.compression.text import decode_text, encode_text
from llbook.data.grammar import grammar_stories
from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.parameters import Parameters
from llbook.report import language_model as language_report
from llbook.report import perceptron as perceptron_report
from llbook.report import scaling as scaling_report
from llbook.report.language_model import Verdict, setting_label
from llbook.report.numbers import number, spread, table, values
from llbook.runs.run import Run

__all__ = [
    "MARKS",
    "CompanionConfig",
    "Entry",
    "claims",
    "code",
    "entries_table",
    "gradient_difference",
    "language_entries",
    "perceptron_entries",
    "pictures",
    "records_table",
    "scaling_entries",
    "summary",
]


class CompanionConfig(Parameters):
    """The page that holds the paper against the book."""

    profile: Literal["smoke", "laptop", "paper"] = Field(
        "laptop", description="whose run of each experiment is shown as this build's"
    )
    horizon: float = Field(
        1e7, ge=1, le=1e15, description="steps to which Figure 11 carries its laws on"
    )


REPRODUCED = "reproduced"
CHANGED = "reproduced under stated changes"
FAILED = "not reproduced"
SMALLER = "not attempted at this scale"

MARKS = {REPRODUCED: "✓", CHANGED: "(✓)", FAILED: "✗", SMALLER: "–"}
"""The four verdicts, each with the mark that stands beside it."""

PRINTED = "as-printed"
"""The recorded setting of the perceptron that is the paper's own."""

PAPER_SCALE = {"steps": 4000, "size": 2**14, "vocabulary": 5000}
"""Of the paper's figures of the language model (App. D)."""

_GOOD = ("reproduced", "exceeded")

_PLACES = {
    "Fig. 4a": "{numref}`fig-4a`",
    "Fig. 5a": "{numref}`fig-5a`",
    "Fig. 6a": "{numref}`fig-6a`",
    "Fig. 7a": "{numref}`fig-7a`",
    "Fig. 8a": "{numref}`fig-8a`",
    "Fig. 9": "{numref}`fig-9`",
    "Fig. 10a": "{numref}`fig-10a`",
    "Fig. 2, 5b": "{numref}`fig-5b`",
    "Fig. 4b": "{numref}`fig-4b`",
    "Fig. 6b": "{numref}`fig-6b`",
    "Fig. 7b": "{numref}`fig-7b`",
    "Fig. 8b": "{numref}`fig-8b`",
    "Fig. 10b": "{numref}`fig-10b`",
    "Table 1": "{doc}`scaling_laws`",
    "Tables 1, 2": "{ref}`sc-ladder`",
    "Table 2": "{ref}`sc-ladder`",
    "Eq. 9": "{eq}`eq-ar-laws`",
    "Fig. 11": "{numref}`fig-11`",
}


@dataclass(frozen=True)
class Entry:
    """One item of the paper.

    Attributes:
        item: its name in the paper, and what is looked at.
        place: where it is in the book, as MyST.
        paper: the paper's value or statement.
        ours: what the book has, a line for each setting.
        verdict: one of :data:`MARKS`.
    """

    item: str
    place: str
    paper: str
    ours: tuple[str, ...]
    verdict: str

    def __post_init__(self) -> None:
        if self.verdict not in MARKS:
            raise ValueError(f"verdict: got {self.verdict!r}; expected one of {', '.join(MARKS)}")

    def row(self) -> list[str]:
        """Cells of a MyST table."""
        verdict = f"{MARKS[self.verdict]} {self.verdict}"
        return [self.item, self.place, self.paper, "<br>".join(self.ours), verdict]


def entries_table(entries: Iterable[Entry]) -> str:
    """The entries as a MyST table."""
    header = ["item", "in the book", "the paper", "the companion", "verdict"]
    return table(header, [entry.row() for entry in entries])


def summary(entries: Sequence[Entry]) -> str:
    """How many entries have which verdict, in one sentence."""
    counts = [(sum(e.verdict == word for e in entries), word) for word in MARKS]
    parts = ", ".join(f"{count} *{word}*" for count, word in counts)
    return f"Of {len(entries)} items: {parts}."


def perceptron_entries(
    records: Mapping[str, Sequence[Run]], live: Run, profile: str
) -> list[Entry]:
    """The perceptron's figures: recorded settings at the paper's scale, and this build's run.

    *Reproduced*: in the setting :data:`PRINTED`. *Under stated changes*: in another recorded setting,
    or in the live run at the paper's N, D and T; all of these are named.

    Args:
        records: setting → runs, :data:`PRINTED` among them.
        live: the run of this build.
        profile: the one that this build was made at.
    """
    own = perceptron_report.verdicts([live.arrays], size=live.config["data"]["size"])
    usual = PerceptronConfig().model_dump()
    full = all(
        live.config[part][name] == usual[part][name]
        for part, name in (("data", "size"), ("data", "dimension"), ("training", "steps"))
    )
    by_item = {
        name: _by_item(perceptron_report.verdicts([run.arrays for run in runs]))
        for name, runs in records.items()
    }
    found = []
    for verdict in own:
        item = verdict.item
        column = {name: of[item] for name, of in by_item.items() if item in of}
        lines, good = _settings_lines(column, PRINTED)
        lines.append(_line(verdict, f"this build, `{profile}`"))
        changed = bool(good) or (full and verdict.word in _GOOD)
        tried = bool(column) or full
        word = REPRODUCED if PRINTED in good else CHANGED if changed else FAILED
        found.append(_entry(verdict, lines, word if tried else SMALLER))
    return found


def language_entries(records: Mapping[str, Sequence[Run]], live: Run, profile: str) -> list[Entry]:
    """The language model's figures: recorded settings, the largest of them first, and this build's run.

    A largest one at :data:`PAPER_SCALE` is judged as it stands. Smaller settings can show an item
    *under stated changes*, that of scale; if none does, the item counts as not attempted.
    """
    largest = max(records, key=lambda name: _scale(records[name][0]))
    own = _by_item(language_report.verdicts([live.arrays]))
    by_item = {
        name: _by_item(language_report.verdicts([run.arrays for run in runs]))
        for name, runs in records.items()
    }
    config = records[largest][0].config
    sizes = config["data"] | config["training"]
    full = all(sizes[name] >= least for name, least in PAPER_SCALE.items())
    found = []
    for item, verdict in (own | by_item[largest]).items():
        column = {name: of[item] for name, of in by_item.items() if item in of}
        lines, good = _settings_lines(column, largest)
        if item in own:
            lines.append(_line(own[item], f"this build, `{profile}`"))
        if full and largest in column:
            word = REPRODUCED if largest in good else FAILED
        else:
            shown = bool(good) or (item in own and own[item].word in _GOOD)
            word = CHANGED if shown else SMALLER
        found.append(_entry(verdict, lines, word))
    return found


def scaling_entries(
    records: Mapping[str, Sequence[Run]], rungs: Sequence[str], horizon: float
) -> list[Entry]:
    """What the paper says of scaling laws, held against the recorded ladder, below the paper's scale.

    Args:
        records: setting → runs.
        rungs: the settings of the ladder, in order.
        horizon: steps to which Figure 11 carries the laws on.
    """
    fits = [
        [scaling_report.scaling_of(run.arrays, draws=1) for run in records[name]] for name in rungs
    ]
    found = []
    for verdict in scaling_report.verdicts(fits, horizon):
        word = CHANGED if verdict.word in _GOOD else SMALLER
        lines = [_line(verdict, f"ladder of `{rungs[0]}` to `{rungs[-1]}`")]
        found.append(_entry(verdict, lines, word))
    return found


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


def claims(
    records: Mapping[str, Sequence[Run]], coded: Code, difference: float, headline: str = "headline"
) -> list[Entry]:
    """The paper's numbered theorems, properties, algorithms and the recursion of its gradient.

    Proofs are in the book; the numbers are of the runs in ``records[headline]`` and of
    :func:`code` and :func:`gradient_difference`.
    """
    runs = [run.arrays for run in records[headline]]
    size = records[headline][0].config["data"]["size"]
    dropped = [float(np.mean(run["support"] < size)) for run in runs]
    test, desired, future = (
        [spread(values(runs, name, place), 2) for place in (0, -1)]
        for name in ("similarity", "desired_similarity", "future_similarity")
    )
    by_item = _by_item(perceptron_report.verdicts(runs))
    zero, learned = (
        by_item[item].ours
        for item in ("Fig. 8a: γ = 0 where CT ≤ 0", "Fig. 9: learned examples below 0.2")
    )
    there = f"`{headline}`"
    short = coded.excess < 0.01
    return [
        Entry(
            "Theorem A.1: training is a code",
            "{prf:ref}`thm-description-length`",
            "d(C) = Σ B·L_t + d(trainer)",
            (
                f"proved, up to 2 bits; range coder {100 * coded.excess:.2f}% above Σ B·L_t over "
                f"{coded.symbols:,} symbols, computed here",
            ),
            REPRODUCED if short else FAILED,
        ),
        Entry(
            "Algorithms 1, 2: encode while training, decode by replaying it",
            "{prf:ref}`alg-encode`, {prf:ref}`alg-decode`",
            "lossless",
            ("decoded alike, computed here" if coded.same else "**not** decoded alike",),
            REPRODUCED if coded.same else FAILED,
        ),
        Entry(
            "Theorem 3.1: the Learning Law",
            "{prf:ref}`thm-ll-law`, {prf:ref}`thm-mp-law`",
            "equal CT over the support, equal to −dL/dt",
            (
                "proved where the state depends on the totals of the weights alone; in general "
                "with a remainder, and with λ for ∇L exactly",
                f"mean SIM {test[0]} → {test[1]} on the test, {desired[0]} → {desired[1]} on the desired "
                f"examples; with λ {future[0]} → {future[1]}: {there}",
            ),
            CHANGED,
        ),
        Entry(
            "Lemma B.1",
            "{prf:ref}`lem-ll-multiplier`",
            "μ = 0 implies μ′ = 0",
            ("proved, for 0 < t < T",),
            REPRODUCED,
        ),
        Entry(
            "Property 4.1: CT ≤ 0 gets no weight",
            "{prf:ref}`prop-ll-non-contributive`",
            "before convergence",
            ("proved, as the law; with λ exactly", f"γ = 0 at such (n, t): {zero}: {there}"),
            CHANGED,
        ),
        Entry(
            "Property 4.2: learned examples get no weight",
            "{prf:ref}`prop-ll-learned`",
            "margin → +∞ implies γ = 0",
            (
                "proved, with a bound in the place of the limit",
                f"{learned} of learned (n, t) have less than a fifth of the largest weight: {there}",
            ),
            CHANGED,
        ),
        Entry(
            "Property 4.3: a redundant training set is not used up",
            "{prf:ref}`prop-ll-redundant`",
            "almost surely some γ = 0",
            (
                "proved that full support is confined to a set of measure zero, not that θ stays off it",
                f"some γ = 0 at {100 * float(np.mean(dropped)):.0f}% of the steps: {there}",
            ),
            CHANGED,
        ),
        Entry(
            "Eq. 22: gradient by backward recursion",
            "{doc}`optimal_policy`",
            "exact",
            (f"{number(difference, 2)} from autograd, relative, computed here",),
            REPRODUCED if difference < 1e-10 else FAILED,
        ),
    ]


def pictures(records: Mapping[str, Sequence[Run]], headline: str = "headline") -> list[Entry]:
    """Drawings, and the summary plot of similarity against compression, on recorded perceptron runs.

    Figure 3B counts as shown with a rank correlation above 0.9 in every run (in part: 0.3), as Figure 7 does.
    """
    runs = [run.arrays for run in records[headline]]
    follows = [
        language_report.rank_correlation(
            1 / run["history_desired_auc"], run["history_desired_similarity"]
        )
        for run in runs
    ]
    before, after = (spread(values(runs, "cr_mixed", place)) for place in (0, -1))
    drawn = ("drawn",)
    return [
        Entry(
            "Fig. 1: area under the curve, and compression",
            "{numref}`fig-1`",
            "a drawing",
            ("drawn from a run", f"CR {before} → {after} in the paper's unit: `{headline}`"),
            REPRODUCED,
        ),
        Entry(
            "Fig. 3A: the law in 3-D", "{numref}`fig-ll-drawing`", "a drawing", drawn, REPRODUCED
        ),
        Entry(
            "Fig. 3B: mean SIM rises with CR",
            "{numref}`fig-ll-similarity`",
            "rises",
            (
                f"rank correlation {spread(follows, 2)} on the desired examples"
                f"{', in part' if 0.3 < min(follows) <= 0.9 else ''}: `{headline}`, the one setting looked at",
            ),
            CHANGED if min(follows) > 0.9 else FAILED,
        ),
        Entry("Fig. 12: training as a network", "{numref}`fig-12`", "a drawing", drawn, REPRODUCED),
    ]


def records_table(experiments: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """Names of the recorded settings, what they are, how many seeds, and the identities of their runs."""
    rows = []
    for experiment, settings in experiments.items():
        for name, runs in settings.items():
            meaning = perceptron_report.LABELS.get(name) or setting_label(runs)
            seeds = ", ".join(str(run.config["seed"]) for run in runs)
            ids = "<br>".join(f"`{run.id}`" for run in runs)
            rows.append([f"`{name}`", experiment, meaning, seeds, ids])
    return table(["record", "experiment", "setting", "seeds", "runs"], rows)


def _by_item(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    return {verdict.item: verdict for verdict in verdicts}


def _settings_lines(column: Mapping[str, Verdict], first: str) -> tuple[list[str], list[str]]:
    """What an item's verdicts in recorded settings, ``first`` at their head, say; and which are good."""
    good = [name for name, verdict in column.items() if verdict.word in _GOOD]
    others = [name for name in column if name != first]
    lines = [_line(column[first], f"`{first}`")] if first in column else []
    if also := [name for name in good if name != first]:
        lines.append(_line(column[also[0]], f"`{also[0]}`"))
        if more := ", ".join(f"`{name}`" for name in also[1:]):
            lines.append(f"so too in {more}")
    elif part := [f"`{name}`" for name in others if column[name].word == "in part"]:
        lines.append(f"in part in {', '.join(part)}")
    elif others:
        lines.append(f"in none of {len(others)} other settings")
    return lines, good


def _line(verdict: Verdict, where: str) -> str:
    note = f", {verdict.word}" if verdict.word in ("exceeded", "in part") else ""
    return f"{verdict.ours}{note}: {where}"


def _entry(verdict: Verdict, lines: Sequence[str], word: str) -> Entry:
    key = re.split(r":| against", verdict.item)[0]
    return Entry(verdict.item, _PLACES[key], verdict.paper, tuple(lines), word)


def _scale(run: Run) -> int:
    return int(run.config["training"]["steps"] * run.config["data"]["size"])
