"""What the page on the language model says of its runs, in words and tables made from numbers.

Every sentence here is chosen by a threshold that it states, so that it is right
whichever way the numbers come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from IPython.display import HTML
from numpy.typing import NDArray

from llbook.report.numbers import number, spread, values
from llbook.runs.store import Run

__all__ = [
    "FACTOR",
    "FEWEST_POLICIES",
    "MEASURABLE",
    "PAPER",
    "Verdict",
    "against",
    "area_changes",
    "comparison",
    "corpus_notice",
    "expected_zeros",
    "gain",
    "gain_sentence",
    "graded",
    "largest_similarity_verdict",
    "near_zero_share",
    "per_cent",
    "rank_correlation",
    "setting_label",
    "similarity_verdict",
    "stories_table",
    "study_rows",
    "used_examples",
    "verdicts",
    "zero_weights_verdict",
]

Arrays = Mapping[str, NDArray[Any]]

FACTOR = 1.5
"""A value is *reproduced* within this factor of the paper's."""

MEASURABLE = 0.005
"""A change of the area under the loss curve that is smaller than this share of it counts as none."""

FEWEST_POLICIES = 5
"""Over fewer policies of a search a correlation says nothing, and is not judged."""

PAPER: dict[str, Any] = {"auc": (4.1, 3.8), "cr_mixed": (3.0, 3.25), "ar": 2.41, "similarity": 6.0}
"""The paper's values: AUC/T in nats and CR before and after, AR, and the largest SIM_t."""


@dataclass(frozen=True)
class Verdict:
    """One item of the paper held against runs: its figure, the paper's value, ours, one word."""

    item: str
    paper: str
    ours: str
    word: str

    def row(self) -> list[str]:
        return [self.item, self.paper, self.ours, self.word]


def area_changes(runs: Sequence[Arrays], *, name: str = "auc") -> list[float]:
    """AUC after the search over AUC before it, minus one, of each run (``auc`` or ``desired_auc``)."""
    return [
        after / before - 1
        for before, after in zip(values(runs, name, 0), values(runs, name), strict=True)
    ]


def gain(changes: Sequence[float]) -> str:
    """``"gain"`` or ``"loss"`` where all runs change by more than :data:`MEASURABLE`, else ``"nothing"``.

    Raises:
        ValueError: no run at all.
    """
    if not len(changes):
        raise ValueError("expected at least one change, got none")
    if max(changes) < -MEASURABLE:
        return "gain"
    return "loss" if min(changes) > MEASURABLE else "nothing"


def per_cent(changes: Sequence[float], decimals: int = 1) -> str:
    """Mean and range of relative changes: ``-7.3% (-8.0 to -6.9)``."""
    array = 100 * np.asarray(changes, dtype=float)
    text = f"{array.mean():+.{decimals}f}%"
    if len(array) > 1:
        text += f" ({array.min():+.{decimals}f} to {array.max():+.{decimals}f})"
    return text.replace("-", "−")


def gain_sentence(runs: Sequence[Arrays]) -> str:
    """Whether the policy gains anything on the test set, in one or two sentences."""
    test, desired = area_changes(runs), area_changes(runs, name="desired_auc")
    shown, optimised = per_cent(test), per_cent(desired)
    seeds = f" in each of {len(runs)} seeds" if len(runs) > 1 else ""
    bound = f"{100 * MEASURABLE:g}%"
    if np.mean(desired) > 0:
        fitted = ": the search did not descend there either, so its step size is too large here"
    else:
        fitted = (
            "; the difference is over-fitting"
            if np.mean(test) - np.mean(desired) > MEASURABLE
            else ""
        )
    match gain(test):
        case "gain":
            return (
                f"The searched policy gains on the test set: the area under the loss curve changes by "
                f"{shown}, more than {bound} downwards{seeds}. On the desired examples that it was "
                f"optimised on, the change is {optimised}{fitted}."
            )
        case "loss":
            return (
                f"**The searched policy gains nothing on the test set; it loses**: the area changes by "
                f"{shown}, against {optimised} on the desired examples that it was optimised on{fitted}."
            )
        case _:
            return (
                f"**The searched policy gains nothing measurable on the test set**: the area changes by "
                f"{shown}, which is not a fall of more than {bound}{seeds or ' of it'}; on the desired "
                f"examples that it was optimised on, by {optimised}."
            )


def against(value: float, paper: float, some: bool) -> str:
    """Held against the paper's value; ``some``: whether there is an effect of the right sign."""
    if np.isnan(value) or not some:
        return "not reproduced"
    if value > FACTOR * paper:
        return "exceeded"
    return "reproduced" if value >= paper / FACTOR else "in part"


def graded(value: float, full: float, part: float) -> str:
    """*Reproduced* above ``full``, *in part* above ``part``."""
    # nan fails both comparisons
    return "reproduced" if value > full else "in part" if value > part else "not reproduced"


def _mean(numbers: Sequence[float]) -> float:
    known = [value for value in numbers if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def rank_correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Spearman's ρ, which no single policy far from the others decides.

    Returns:
        nan over fewer than :data:`FEWEST_POLICIES` finite pairs, or where one side never changes.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    if keep.sum() < FEWEST_POLICIES or np.ptp(x[keep]) == 0 or np.ptp(y[keep]) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # takes long to import

    return float(spearmanr(x[keep], y[keep]).statistic)


def _rises_to_the_end(run: Arrays) -> bool:
    """Whether the policy of the largest CR has the largest mean SIM."""
    similarity = run["history_similarity"][np.argmax(run["history_cr"])]
    return bool(similarity == np.nanmax(run["history_similarity"]))


def _largest(curve: NDArray[Any]) -> float:
    return float(np.nanmax(curve)) if np.isfinite(curve).any() else float("nan")


def near_zero_share(run: Arrays, size: int) -> float:
    """Of the heat map's cells with CT > 0, the share below a tenth of 1/N; nan without such a cell.

    Args:
        run: its arrays.
        size: N.
    """
    if "heat_map" not in run:
        return float("nan")
    cells = run["heat_map"]
    if "heat_map_contributes" in run:  # the perceptron's contribute at every cell
        cells = cells[run["heat_map_contributes"].astype(bool)]
    return float(np.mean(cells * size < 0.1)) if cells.size else float("nan")


def expected_zeros(run: Arrays, first: int | None = None) -> float:
    """Share of γ = 0 where CT ≤ 0 if the zeros of each step fell on its examples blindly.

    Idle examples and zero weights are both more frequent at some steps than at others: their
    share of all weights would mix the two.

    Args:
        run: its arrays.
        first: of the first so many steps; of all unless given.

    Returns:
        Σ_t i_t (1 − s_t/N) / Σ_t i_t with i_t examples of CT ≤ 0 and s_t weights above zero at
        step t; nan where the run does not have i_t, as records do not, or where it is zero.
    """
    idle = run["idle"][:first] if "idle" in run else np.zeros(1)
    if not idle.sum():
        return float("nan")
    size = np.mean(run["support"]) / run["history_support_share"][-1]
    return float(np.average(1 - run["support"][:first] / size, weights=idle))


def similarity_verdict(figure: str, runs: Sequence[Arrays]) -> Verdict:
    """Figure 7: whether mean SIM rises with CR over the policies of the search, in every run.

    Spearman's ρ, over :data:`FEWEST_POLICIES` at least, is above 0.9, in part above 0.3; in
    part at most over one run, or unless the policy of the largest CR has the largest mean SIM.
    """
    follows = [rank_correlation(run["history_cr"], run["history_similarity"]) for run in runs]
    known = [value for value in follows if not np.isnan(value)]
    ends = len(runs) > 1 and all(_rises_to_the_end(run) for run in runs)
    shown = "undefined"
    if known:
        shown = f"{round(np.mean(known), 2) + 0.0:.2f}"
        if len(known) > 1:
            shown += f" ({min(known):.2f} to {max(known):.2f})"
    return Verdict(
        f"{figure}: rank correlation of mean SIM with CR",
        "positive",
        shown.replace("-", "−"),
        graded(min(known), 0.9 if ends and len(known) == len(runs) else np.inf, 0.3)
        if known
        else "undefined",
    )


def zero_weights_verdict(figure: str, runs: Sequence[Arrays]) -> Verdict:
    """Figure 8: whether examples with CT ≤ 0 get no weight under the last policy.

    The share of γ = 0 among such (n, t) is above 90%, in part above 50%, provided that it is
    above :func:`expected_zeros`, where that is known.
    """
    zero = _mean(values(runs, "zero_weight_share"))
    blind = _mean([expected_zeros(run) for run in runs])
    item = f"{figure}: γ = 0 where CT ≤ 0"
    if np.isnan(zero):
        return Verdict(item, "towards 100%", "no such example", "undefined")
    return Verdict(
        item,
        "towards 100%",
        f"{100 * zero:.0f}%" + ("" if np.isnan(blind) else f"; {100 * blind:.0f}% by chance"),
        "not reproduced" if zero <= blind else graded(zero, 0.9, 0.5),
    )


def largest_similarity_verdict(item: str, paper: float, runs: Sequence[Arrays]) -> Verdict:
    """Figure 6: the mean over runs of the largest SIM_t of the last policy, against the paper's.

    It counts only if, in every run, the search gains on the test set and the largest SIM_t is
    above that under conventional learning; in part at most unless it is so by :data:`FACTOR`.
    """
    start, top = (
        np.array([_largest(run["similarity"][place]) for run in runs]) for place in (0, -1)
    )
    grows = gain(area_changes(runs)) == "gain" and bool((top > start).all())
    word = against(float(np.mean(top)), paper, grows)
    if grows and not (top > FACTOR * start).all():
        word = "in part"
    return Verdict(
        item,
        f"about {paper:g}",
        f"{spread(top, 2)}; {spread(start, 2)} under conventional learning",
        word,
    )


def verdicts(runs: Sequence[Arrays]) -> list[Verdict]:
    """Each figure of the paper held against runs of one setting.

    The rules: AR and ΔAUC are *reproduced* within a factor of
    :data:`FACTOR` of the paper's, *exceeded* beyond it, reproduced *in part* where the
    effect has the right sign; both ask for a gain on the test set as
    :func:`gain` has it, and AR for being defined in every run. Figures 6, 7 and 8 have rules of
    their own (:func:`largest_similarity_verdict`, :func:`similarity_verdict`,
    :func:`zero_weights_verdict`). The share of weights below a tenth of 1/N where CT > 0
    (:func:`near_zero_share`, where the run has its heat map): above 50%, 10%.
    """
    changes, ratios = area_changes(runs), values(runs, "ar")
    won = gain(changes) == "gain"
    paper_change = PAPER["auc"][1] / PAPER["auc"][0] - 1
    ratio = float(np.mean(ratios))  # nan if one is
    found = [
        Verdict(
            "Fig. 2, 5b: AR",
            number(PAPER["ar"]),
            f"{spread(ratios)}; ΔAUC {per_cent(changes)}",
            against(ratio, PAPER["ar"], won and ratio > 1),
        ),
        Verdict(
            "Fig. 4b: change of AUC/T",
            per_cent([paper_change]),
            per_cent(changes),
            against(-float(np.mean(changes)), -paper_change, won),
        ),
        largest_similarity_verdict(
            "Fig. 6b: largest SIM of the last policy", PAPER["similarity"], runs
        ),
        similarity_verdict("Fig. 7b", runs),
        zero_weights_verdict("Fig. 8b", runs),
    ]
    near = _mean([near_zero_share(run, len(run["perturbed"])) for run in runs])
    if not np.isnan(near):
        zeros = 1 - _mean(values(runs, "support_share"))
        found.append(
            Verdict(
                "Fig. 10b: weights below 0.1/N where CT > 0",
                "many",
                f"{100 * near:.0f}%; {100 * zeros:.0f}% of all weights are zero",
                graded(near, 0.5, 0.1),
            )
        )
    return found


def setting_label(runs: Sequence[Run]) -> str:
    """A setting's scale in a few signs."""
    config = runs[0].config
    return (
        f"T = {config['training']['steps']:,}, N = {config['data']['size']:,}, "
        f"V = {config['data']['vocabulary']:,}"
    )


def comparison(columns: Mapping[str, Sequence[Run]]) -> tuple[list[str], list[list[str]]]:
    """The table *paper and companion*: a column per setting, means over its seeds.

    ΔAUC, AR and the largest SIM have their range beside the mean.

    Args:
        columns: heading → runs of one setting.

    Returns:
        Header and rows of Markdown cells; the last column is the paper's.
    """

    def share(name: str, runs: Sequence[Arrays]) -> str:
        mean = _mean(values(runs, name))
        return "none" if np.isnan(mean) else f"{100 * mean:.0f}%"

    paper_change = per_cent([PAPER["auc"][1] / PAPER["auc"][0] - 1])
    units = np.log(2)
    lines: list[tuple[str, str, list[str]]] = [
        ("scale", "T = 4,000, N = 16,384, V = 5,000", []),
        ("text", "TinyStories", []),
        ("AUC/T before → after (nats)", " → ".join(number(v, 2) for v in PAPER["auc"]), []),
        ("ΔAUC (test)", paper_change, []),
        ("ΔAUC (desired)", "–", []),
        ("CR before → after (paper's unit)", " → ".join(number(v) for v in PAPER["cr_mixed"]), []),
        ("CR before → after (one unit)", " → ".join(number(units * v) for v in PAPER["cr_mixed"]), []),
        ("AR (running minima)", number(PAPER["ar"]), []),
        ("mean SIM, before → after", "–", []),
        ("largest SIM of the last policy", f"about {PAPER['similarity']:g}", []),
        ("mean SIM with λ, before → after", "–", []),
        ("first-order gap, relative, before → after", "–", []),
        ("γ = 0 where CT ≤ 0", "towards 100%", []),
        ("weights above zero", "–", []),
    ]  # fmt: skip
    for runs in columns.values():
        arrays = [run.arrays for run in runs]

        def way(name: str, digits: int = 3, arrays: Sequence[Arrays] = arrays) -> str:
            before, after = _mean(values(arrays, name, 0)), _mean(values(arrays, name))
            return f"{number(before, digits)} → {number(after, digits)}"

        cells = (
            setting_label(runs),
            _text_name(runs[0].config["corpus_name"]),
            way("auc"),
            per_cent(area_changes(arrays)),
            per_cent(area_changes(arrays, name="desired_auc")),
            way("cr_mixed"),
            way("cr"),
            spread(values(arrays, "ar")),
            way("similarity", 2),
            spread([_largest(run["similarity"][-1]) for run in arrays], 2),
            way("future_similarity", 2),
            way("relative_gap", 2),
            share("zero_weight_share", arrays),
            share("support_share", arrays),
        )
        for line, cell in zip(lines, cells, strict=True):
            line[2].append(cell)
    header = ["", *columns, "paper"]
    return header, [[name, *cells, paper] for name, paper, cells in lines]


def _text_name(corpus: str) -> str:
    return {"tinystories": "TinyStories", "file": "a file", "grammar": "grammar"}.get(
        corpus, corpus
    )


def corpus_notice(run: Run) -> str:
    """Which text a run was made from, as one paragraph of Markdown.

    Raises:
        ValueError: the run's configuration names a corpus that is not known.
    """
    config = run.config
    origin = f"{config['corpus_stories']:,} stories, SHA-256 `{config['corpus_sha256'][:12]}…`"
    match config["corpus_name"]:
        case "grammar":
            body = (
                f"**Not TinyStories**: the text of this run was made by the small story grammar that comes "
                f"with the package ({origin}), because no other text was at hand or because it was asked for. "
                f"It has a few hundred words and little variety; losses are lower than on "
                f"real text, and not to be held against the paper's."
            )
        case "tinystories":
            body = f"The text of this run is TinyStories ({origin})."
        case "file":
            body = f"The text of this run is a local file of stories ({origin})."
        case other:
            raise ValueError(f"corpus_name: got {other!r}; expected grammar, tinystories or file")
    return body


def used_examples(run: Arrays, count: int = 4) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indices of the training examples with the most and with the least total weight.

    Equal weights (zeros, mostly) are put in the order of their mean contribution, so that the
    least used are those that would have harmed most.

    Raises:
        ValueError: a count below 1 or more than half of the examples.
    """
    size = len(run["example_weight"])
    if not 1 <= count <= size // 2:
        raise ValueError(f"count must be 1 to {size // 2} for {size} examples, got {count}")
    order = np.lexsort((run["example_contribution"], run["example_weight"]))
    return order[::-1][:count], order[:count]


def stories_table(run: Arrays, indices: Sequence[int], texts: Sequence[str], title: str) -> HTML:
    """Examples as text, with their weights; the text is escaped, whatever is in it.

    Args:
        run: arrays of the run that the indices belong to.
        indices: training examples.
        texts: their texts, decoded from the corpus at hand.
        title: what is shown, as the table's caption.
    """
    weight = np.asarray(run["example_weight"], dtype=float)
    weight = weight * len(weight) / weight.sum()
    lines = [
        f"<tr><td>{weight[n]:.2f}</td><td>{int(run['edits'][n])}</td>"
        f"<td>{float(run['example_contribution'][n]):.2g}</td><td>{escape(text)}</td></tr>"
        for n, text in zip(indices, texts, strict=True)
    ]
    return HTML(
        f'<table class="table tex2jax_ignore stories"><caption>{escape(title)}</caption>'
        '<thead><tr><th scope="col">weight over equal share</th><th scope="col">edits</th>'
        '<th scope="col">mean CT</th><th scope="col">text</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def study_rows(study: Run) -> tuple[list[str], list[list[str]]]:
    """A recorded sweep, see :meth:`llbook.experiments.experiment.Experiment.sweep`, as a table."""
    arrays, names = study.arrays, study_parameters(study)
    header = [*names, "AUC/T before → after", "ΔAUC (test)", "ΔAUC (desired)", "AR"]
    rows = []
    for point, auc in enumerate(arrays["history_auc"]):
        rows.append([f"{arrays[name][point]:g}" for name in names])
        if np.isnan(auc).any():
            rows[-1] += ["diverged", "–", "–", "–"]
            continue
        falls = [study_change(study, name)[point] for name in ("auc", "desired_auc")]
        rows[-1] += [
            " → ".join(map(number, auc)),
            *(per_cent([fall]) for fall in falls),
            spread([arrays["history_ar"][point, 1]]),
        ]
    return header, rows


def study_parameters(study: Run) -> list[str]:
    """The parameters that differ between the points of a sweep."""
    measures = ("history_", "seconds")
    return [name for name in study.arrays if not name.startswith(measures)]


def study_change(study: Run, measure: str) -> NDArray[np.float64]:
    """Relative change of a measure by the search, for each point of a sweep; nan where it diverged."""
    before, after = study.arrays[f"history_{measure}"].T
    return np.asarray(after / before - 1)
