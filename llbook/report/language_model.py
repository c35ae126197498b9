"""What the page on the language model says of its runs, in words and tables made from numbers.

Every sentence here is chosen by a threshold that it states, so that it is right
whichever way the numbers come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from IPython.display import HTML
from numpy.typing import NDArray

from llbook.data.stories import text_name
from llbook.experiments.language_model import LanguageModelConfig
from llbook.report import paper
from llbook.report.numbers import number, per_cent, spread, values
from llbook.report.verdicts import (
    MEASURABLE,
    Verdict,
    area_changes,
    figure_verdicts,
    gain,
    known_mean,
)
from llbook.runs.run import Run

__all__ = [
    "comparison",
    "corpus_notice",
    "gain_sentence",
    "preference",
    "setting_label",
    "stories_table",
    "study_rows",
    "text_of",
    "used_examples",
    "verdicts",
]

Arrays = Mapping[str, NDArray[Any]]


def verdicts(runs: Sequence[Arrays]) -> list[Verdict]:
    """Figures 4b to 10b held against runs of one setting, by the rules of
    :func:`~llbook.report.verdicts.figure_verdicts`."""
    return figure_verdicts("b", paper.LANGUAGE_MODEL, runs)


def preference(run: Arrays) -> str:
    """What the last policy does with perturbed examples, in a sentence chosen by the numbers."""
    spoilt = run["perturbed"].astype(bool)
    if not spoilt.any() or spoilt.all():
        return "All training examples are of one kind here, so there is nothing to prefer."
    share, weight = 1 - spoilt.mean(), run["clean_weight"][-1]
    if weight.mean() > share + 0.02:
        verdict = "The policy **prefers the unperturbed examples**"
    elif weight.mean() < share - 0.02:
        verdict = "The policy **prefers the perturbed examples**"
    else:
        verdict = (
            "The policy **hardly tells the two kinds apart** (by less than two percentage points)"
        )
    text = (
        f"{verdict}: they carry {100 * weight.mean():.1f}% of the weight, averaged over the steps, "
        f"against a share of {100 * share:.1f}%, and more than their share at "
        f"{100 * np.mean(weight > share):.0f}% of the steps."
    )
    edits, used = run["edits"][spoilt], run["example_weight"][spoilt]
    if np.ptp(edits) and np.ptp(used):
        inside = np.corrcoef(edits, used)[0, 1]
        text += (
            " Among the perturbed examples alone, weight and edit distance have a correlation of "
            f"{inside:.2f}."
        ).replace("-", "−")
    return text


def gain_sentence(runs: Sequence[Arrays]) -> str:
    """Whether the policy gains anything on the test set, in one or two sentences."""
    test, desired = area_changes(runs), area_changes(runs, name="desired_auc")
    shown, optimised = per_cent(test), per_cent(desired)
    seeds = f" in each of {len(runs)} seeds" if len(runs) > 1 else ""
    bound = f"{100 * MEASURABLE:g}%"
    if np.mean(desired) > 0:
        fitted = ": the search did not descend there either, so its step size is too large here"
    elif min(np.subtract(test, desired)) > MEASURABLE:
        chance = ", or chance in one test set" if len(runs) == 1 else ""
        fitted = f"; the difference is over-fitting{chance}"
    else:
        fitted = ""
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
        case _ if gaining := int(np.sum(np.array(test) < -MEASURABLE)):
            idle = int(np.sum(np.array(desired) == 0))
            found = f"; in {idle} the search found nothing, and returned equal weights" * bool(idle)
            return (
                f"**The searched policy gains on the test set in {gaining} of {len(runs)} seeds**: the "
                f"area changes by {shown}, by more than {bound} downwards in these{found}. On the "
                f"desired examples that it was optimised on, the change is {optimised}{fitted}."
            )
        case _:
            courses = [run["history_desired_auc"] / run["history_desired_auc"][0] for run in runs]
            rose = (
                "; that one rose on the way, so that the step size of the search is too large here"
                * any(course.max() > 1 + MEASURABLE for course in courses)
            )
            return (
                f"**The searched policy gains nothing measurable on the test set**: the area changes by "
                f"{shown}, which is not a fall of more than {bound}{seeds or ' of it'}; on the desired "
                f"examples that it was optimised on, by {optimised}{rose}."
            )


def setting_label(runs: Sequence[Run]) -> str:
    """A setting's scale in a few signs, and its learning rate where that is not the default."""
    config = runs[0].config
    rate = config["training"]["learning_rate"]
    usual = LanguageModelConfig().training.learning_rate
    return _scale(config["data"] | config["training"]) + f", η = {rate:g}" * (rate != usual)


def _scale(sizes: Mapping[str, int]) -> str:
    return f"T = {sizes['steps']:,}, N = {sizes['size']:,}, V = {sizes['vocabulary']:,}"


def comparison(columns: Mapping[str, Sequence[Run]]) -> tuple[list[str], list[list[str]]]:
    """The table *paper and companion*: a column per setting, means over its seeds.

    ΔAUC, AR and the largest SIM have their range beside the mean.

    Args:
        columns: heading → runs of one setting.

    Returns:
        Header and rows of Markdown cells; the last column is the paper's.
    """
    printed = paper.LANGUAGE_MODEL
    scale = _scale(printed.scale)
    one_unit = " → ".join(number(np.log(2) * ratio) for ratio in printed.cr)
    rows = [
        ["scale", scale],
        ["text", "TinyStories"],
        ["AUC/T before → after (nats)", " → ".join(number(area, 2) for area in printed.auc)],
        ["ΔAUC (test)", f"about {per_cent([printed.change], 0)}"],
        ["ΔAUC (desired)", "–"],
        ["CR before → after (paper's unit)", " → ".join(number(ratio) for ratio in printed.cr)],
        ["CR before → after (one unit)", one_unit],
        ["AR (running minima)", number(printed.ar)],
        ["mean SIM, before → after", "–"],
        ["largest SIM of the last policy", f"about {printed.similarity:g}"],
        ["mean SIM with λ, before → after", "–"],
        ["first-order gap, relative, before → after", "–"],
        ["γ = 0 where CT ≤ 0", "towards 100%"],
        ["weights above zero", "–"],
    ]
    for runs in columns.values():
        for row, cell in zip(rows, _column(runs), strict=True):
            row.insert(-1, cell)
    return ["", *columns, "paper"], rows


def _column(runs: Sequence[Run]) -> list[str]:
    arrays = [run.arrays for run in runs]

    def way(name: str, digits: int = 3) -> str:
        ends = (known_mean(values(arrays, name, place)) for place in (0, -1))
        return " → ".join(number(mean, digits) for mean in ends)

    def share(name: str) -> str:
        mean = known_mean(values(arrays, name))
        return "none" if np.isnan(mean) else f"{100 * mean:.0f}%"

    names = {"tinystories": "TinyStories", "file": "a file"}
    corpus = text_of(runs[0])
    return [
        setting_label(runs),
        names.get(corpus, corpus),
        way("auc"),
        per_cent(area_changes(arrays)),
        per_cent(area_changes(arrays, name="desired_auc")),
        way("cr_mixed"),
        way("cr"),
        spread(values(arrays, "ar")),
        way("similarity", 2),
        spread([np.fmax.reduce(run["similarity"][-1]) for run in arrays], 2),
        way("future_similarity", 2),
        way("relative_gap", 2),
        share("zero_weight_share"),
        share("support_share"),
    ]


def corpus_notice(run: Run) -> str:
    """Which text a run was made from, as one paragraph of Markdown.

    Raises:
        ValueError: the run's configuration names a corpus that is not known.
    """
    config = run.config
    origin = f"{config['corpus_stories']:,} stories, SHA-256 `{config['corpus_sha256'][:12]}…`"
    match text_of(run):
        case "grammar":
            return (
                f"**Not TinyStories**: the text of this run was made by the small story grammar that comes "
                f"with the package ({origin}), because no other text was at hand or because it was asked for. "
                f"It has a few hundred words and little variety; losses are lower than on "
                f"real text, and not to be held against the paper's."
            )
        case "tinystories":
            return f"The text of this run is TinyStories ({origin})."
        case "file":
            return f"The text of this run is a local file of stories ({origin})."
        case other:
            raise ValueError(f"corpus_name: got {other!r}; expected grammar, tinystories or file")


def text_of(run: Run) -> str:
    """The text a run was made from: ``"tinystories"``, ``"file"`` or ``"grammar"``."""
    return text_name(run.config["corpus_name"], run.config["corpus_sha256"])


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
    measures = ("history_", "course_", "seconds")
    return [name for name in study.arrays if not name.startswith(measures)]


def study_change(study: Run, measure: str) -> NDArray[np.float64]:
    """Relative change of a measure by the search, for each point of a sweep; nan where it diverged."""
    before, after = study.arrays[f"history_{measure}"].T
    return np.asarray(after / before - 1)
