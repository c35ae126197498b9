"""The rules by which runs are held against the paper: each where it holds, and where it fails."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up_runs import EPOCHS, SIZE, STEPS, made_up

from llbook.report import language_model, perceptron
from llbook.report.numbers import number, per_cent, spread
from llbook.report.paper import ITEMS, LADDER, LANGUAGE_MODEL, LAWS, PERCEPTRON
from llbook.report.verdicts import (
    FACTOR,
    MARKS,
    Verdict,
    Word,
    area_changes,
    chance_similarity,
    expected_zeros,
    gain,
    graded,
    joint_table,
    largest_similarity,
    near_zero_share,
    rank_correlation,
    similarity_rises,
    sized,
    verdict_table,
    zero_weights,
)

RUN = made_up()


def words(*runs, report=language_model):
    return {verdict.key: verdict.word for verdict in report.verdicts(runs)}


def ending(name, value, run=RUN):
    """A run whose last ``history_<name>`` is this."""
    history = run[f"history_{name}"].copy()
    history[-1] = value
    return run | {f"history_{name}": history}


# numbers


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.9999, 3, "1.00"),
        (99.96, 3, "100"),
        (9.996, 3, "10.0"),
        (9.994, 3, "9.99"),
        (0.0009996, 3, "0.00100"),
        (0.0009994, 3, "9.99·10⁻⁴"),
        (99999.6, 3, "1.00·10⁵"),
        (12345.0, 3, "12345"),
        (-0.9999, 2, "−1.0"),
        (-2.5e-5, 2, "−2.5·10⁻⁵"),
        (-math.inf, 2, "−∞"),
        (0.1, 1, "0.1"),
        (0.0, 2, "0.00"),
        (1.234e-5, 2, "1.2·10⁻⁵"),
        (math.inf, 3, "∞"),
        (math.nan, 3, "never"),
    ],
)
def test_significant_digits_are_counted_after_rounding(value, digits, text):
    assert number(value, digits) == text


def test_a_spread_has_its_range_and_says_what_is_undefined():
    assert spread([0.5, math.nan, 1.5]) == "1.00 (0.500–1.50); never in 1 of 3"
    assert spread([math.nan]) == "never"
    assert per_cent([-0.08, -0.06]) == "−7.0% (−8.0 to −6.0)"
    assert per_cent([-0.0004]) == "+0.0%"


# the paper


def test_the_papers_values_agree_with_each_other():
    """CR is about bits over nats; the scale of Figure 2 is a row of Table 2, with its AR."""
    for paper, types in ((PERCEPTRON, 2), (LANGUAGE_MODEL, 5000)):
        for area, ratio in zip(paper.auc, paper.cr, strict=True):
            assert ratio == pytest.approx(math.log2(types) / area, rel=0.05)
        assert paper.change == pytest.approx(paper.auc[1] / paper.auc[0] - 1)
    (row,) = (row for row in LADDER if row["steps"] == LAWS.steps)
    assert row["ar"] == LANGUAGE_MODEL.ar
    assert {name: row[name] for name in LANGUAGE_MODEL.scale} == LANGUAGE_MODEL.scale
    assert LAWS.ratio(1e9) > LAWS.ratio(LAWS.steps) > LANGUAGE_MODEL.ar


# sizes and shares


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (10, Word.REPRODUCED),
        (14.9, Word.REPRODUCED),
        (15.1, Word.LARGER),
        (6.7, Word.REPRODUCED),
        (6.6, Word.PART),
        (0.1, Word.PART),
        (0, Word.FAILED),
        (-10, Word.FAILED),
        (math.nan, Word.FAILED),
    ],
)
def test_a_size_is_held_against_both_sides(value, word):
    assert FACTOR == 1.5
    assert sized(value, 10) == word
    assert sized(value, 10, some=False) == Word.FAILED


def test_shares_are_graded():
    assert [graded(v, 0.9, 0.5) for v in (0.91, 0.9, 0.51, 0.5, math.nan)] == [
        *(Word.REPRODUCED, Word.PART, Word.PART, Word.FAILED, Word.UNDEFINED)
    ]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ([-0.02, -0.006], "gain"),
        ([-0.02, -0.004], "nothing"),
        ([-0.02, 0.02], "nothing"),
        ([0.006], "loss"),
        ([0.0], "nothing"),
    ],
)
def test_a_gain_is_one_in_every_seed_and_larger_than_stated(changes, word):
    assert gain(changes) == word


def test_gain_of_no_run_is_an_error():
    with pytest.raises(ValueError, match="at least one change, got none"):
        gain([])


def test_area_changes_are_relative_to_conventional_learning():
    assert area_changes([RUN]) == pytest.approx([-0.08])
    assert area_changes([RUN], name="desired_auc") == pytest.approx([0.92 * 0.98 - 1])


# Figures 4 and 5, of both experiments


@pytest.mark.parametrize(
    ("fall", "b", "a"),
    [
        (0.08, Word.REPRODUCED, Word.PART),  # the paper's are 7.3% and 44%
        (0.2, Word.LARGER, Word.PART),
        (0.02, Word.PART, Word.PART),
        (0.001, Word.FAILED, Word.FAILED),
        (-0.1, Word.FAILED, Word.FAILED),
        (0.3, Word.LARGER, Word.REPRODUCED),
        (0.6, Word.LARGER, Word.REPRODUCED),
        (0.7, Word.LARGER, Word.LARGER),
    ],
)
def test_the_area_is_held_against_the_papers(fall, b, a):
    run = made_up(fall=fall) | {"learned_counts": np.ones(100)}
    assert words(run)["4b"] == b
    assert words(run, report=perceptron)["4a"] == a


@pytest.mark.parametrize(
    ("ratio", "b", "a"),
    [
        (2.0, Word.REPRODUCED, Word.PART),
        (1.3, Word.PART, Word.PART),
        (0.9, Word.FAILED, Word.FAILED),
        (9.0, Word.LARGER, Word.LARGER),
        (5.5, Word.LARGER, Word.REPRODUCED),
        (55.0, Word.LARGER, Word.LARGER),
        (math.nan, Word.FAILED, Word.FAILED),
    ],
)
def test_an_acceleration_far_above_the_papers_is_not_its_reproduction(ratio, b, a):
    run = ending("ar", ratio)
    assert words(run)["5b"] == b
    assert words(run, report=perceptron)["5a"] == a


def test_a_ratio_counts_only_with_a_gain_and_in_every_run():
    good = ending("ar", 2.4)
    assert words(good)["5b"] == Word.REPRODUCED
    assert words(ending("ar", 2.4, made_up(fall=0.001)))["5b"] == Word.FAILED
    assert words(good, ending("ar", math.nan))["5b"] == Word.FAILED


# Figure 6


def test_the_largest_similarity_has_to_grow_in_every_run():
    start, top = RUN["similarity"][0], RUN["similarity"][-1]
    like = replace(LANGUAGE_MODEL, similarity=float(top.max()))

    def word(*runs, paper=like):
        dealt = [run | {"permuted_similarity": np.zeros(20)} for run in runs]
        return largest_similarity("6b", paper, dealt).word

    assert top.max() > 1.5 * start.max()
    assert word(RUN, RUN) == Word.REPRODUCED
    high = RUN | {"similarity": np.stack([top / 1.2, top])}
    assert word(RUN, high) == Word.PART
    assert word(RUN, RUN | {"similarity": np.stack([top, top])}) == Word.FAILED
    assert word(RUN, made_up(fall=0.001)) == Word.FAILED
    assert word(RUN, paper=replace(like, similarity=float(top.max()) / 1.6)) == Word.LARGER


def test_the_largest_similarity_has_to_be_above_chance():
    """Four examples a row reach a large SIM_t whichever they are."""
    few = RUN | {"support": np.full(STEPS, 4)}
    chance = float(np.quantile(chance_similarity(few), 0.95, method="higher"))
    assert chance > RUN["similarity"][-1].max() > 3
    verdict = largest_similarity("6b", replace(LANGUAGE_MODEL, similarity=3.5), [few])
    assert verdict.word == Word.FAILED
    assert verdict.ours.endswith(f"up to {chance:.1f} by chance")
    dealt = few | {"permuted_similarity": np.full(20, 0.6)}  # the run's own, where it has them
    assert largest_similarity("6b", replace(LANGUAGE_MODEL, similarity=3.5), [dealt]).word == (
        Word.REPRODUCED
    )
    # of a record whose deviations underflowed
    lost = few | {
        "permuted_similarity": np.append(np.full(18, 0.6), [np.finfo(np.float32).max] * 2)
    }
    assert chance_similarity(lost).tolist() == [0.6] * 18
    # equal contributions by chance are no artefact
    endless = few | {"permuted_similarity": np.append(np.full(17, 0.6), [np.inf] * 3)}
    verdict = largest_similarity("6b", replace(LANGUAGE_MODEL, similarity=3.5), [endless])
    assert verdict.word == Word.FAILED and verdict.ours.endswith("up to ∞ by chance")
    assert chance_similarity(few | {"permuted_similarity": np.array([0.6, np.inf])}).max() == np.inf


def test_chance_is_that_of_normal_contributions():
    """Against rows drawn one by one."""
    generator = np.random.default_rng(1)
    centre, sizes = np.linspace(0.1, 0.8, 12), np.array([3, 4, 9] * 4)
    drawn = []
    for _ in range(2000):
        rows = [generator.normal(c, 1, s) for c, s in zip(centre, sizes, strict=True)]
        drawn.append(max(row.mean() / row.std() for row in rows))
    run = {"support": sizes, "similarity": centre[None]}
    found = chance_similarity(run, draws=2000)
    for share in (0.5, 0.9):
        assert np.quantile(found, share) == pytest.approx(np.quantile(drawn, share), rel=0.1)
    np.testing.assert_array_equal(found, chance_similarity(run, draws=2000))
    assert np.isnan(chance_similarity(run | {"support": np.ones(12)})).all()


# Figures 7 and 3B


def test_one_policy_far_from_the_others_does_not_decide_the_correlation():
    far = np.array([0.0, 10, 11, 12, 13]), np.array([0.0, 9, 8, 7, 6])
    assert np.corrcoef(*far)[0, 1] > 0.6
    assert rank_correlation(*far) == pytest.approx(0, abs=1e-12)
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


def rising(*similarity, prefix=""):
    """A run whose CR rises with each policy, and mean SIM goes like this."""
    ratio = np.arange(1.0, 1 + len(similarity))
    return {
        f"history_{prefix}auc": 1 / ratio,
        f"history_{prefix}similarity": np.array(similarity, dtype=float),
    }


@pytest.mark.parametrize(
    ("runs", "word"),
    [
        ([rising(1, 2, 3, 4, 5)] * 2, Word.REPRODUCED),
        ([rising(1, 2, 3, 4, 5)], Word.PART),  # one run
        ([rising(0.073, 0.08, 0.09, 0.1, 0.12)] * 2, Word.PART),  # rises, and hardly
        ([rising(1, 1.2, 1.5, 1.9, 2.1)] * 2, Word.REPRODUCED),
        ([rising(1, 1.2, 1.5, 1.9, 1.95)] * 2, Word.PART),
        ([rising(1, 2, 3, 4, 5), rising(1, 2, 3, 4.1, 4)], Word.PART),  # not to the end
        ([rising(*range(1, 20), 21, 20.5)] * 2, Word.PART),  # the same at a correlation near 1
        ([rising(1, 2, 3, 4, 5), rising(1, 3, 2, 5, 4)], Word.PART),  # 0.8
        ([rising(1, 2, 3, 4, 5), rising(3, 5, 1, 2, 4)], Word.FAILED),  # 0
        ([rising(5, 4, 3, 2, 1)] * 2, Word.FAILED),
        ([rising(1, 2, 3, 4)], Word.UNDEFINED),
        ([rising(1, 2, 3, 4, 5), rising(1, 2, 3, 4)], Word.PART),
        ([rising(-3, -2, -1, -0.5, -0.1)] * 2, Word.PART),
    ],
)
def test_similarity_has_to_rise_far_and_to_the_end_over_enough_policies(runs, word):
    assert similarity_rises("7b", runs).word == word


def test_the_desired_examples_are_looked_at_for_figure_3b():
    run = rising(5, 4, 3, 2, 1) | rising(0.073, 0.08, 0.09, 0.1, 0.12, prefix="desired_")
    verdict = similarity_rises("3B", [run, run], examples="desired_")
    assert verdict.ours == "rank correlation 1.0 (1.0–1.0); mean SIM 0.073 → 0.12"
    assert verdict.word == Word.PART
    far = rising(0.073, 0.08, 0.09, 0.1, 0.2, prefix="desired_")
    assert similarity_rises("3B", [far, far], examples="desired_").word == Word.REPRODUCED
    slack = rising(0.1, 0.3, 0.2, 0.5, 0.4, 0.7, prefix="desired_")
    assert similarity_rises("3B", [slack, slack], examples="desired_").ours.startswith(
        "rank correlation 0.89"
    )
    assert similarity_rises("3B", [slack, slack], examples="desired_").word == Word.PART


# Figures 8, 9 and 10


def test_zero_weights_count_only_above_what_blind_zeros_give():
    support = np.repeat([SIZE // 4, SIZE], STEPS // 2)  # of all weights 3 of 8 are zero
    idle = np.repeat([9, 1], STEPS // 2)
    blind = RUN | {"support": support, "idle": idle}
    blind = ending("support_share", support.mean() / SIZE, ending("zero_weight_share", 0.6, blind))
    assert expected_zeros(blind) == pytest.approx(0.9 * 0.75)
    assert expected_zeros(blind, first=3) == pytest.approx(0.75)
    verdict = zero_weights("8b", [blind])
    assert (verdict.word, verdict.ours) == (Word.FAILED, "60.0%; 67.5% by chance")
    # early records do not have what this takes: all weights are asked
    record = {name: array for name, array in blind.items() if not name.startswith("idle")}
    assert expected_zeros(record) == pytest.approx(1 - 5 / 8)
    assert zero_weights("8b", [record]).word == Word.PART


@pytest.mark.parametrize(
    ("zero", "word"), [(0.98, Word.REPRODUCED), (0.96, Word.PART), (0.94, Word.FAILED)]
)
def test_a_policy_of_few_weights_has_zeros_anyway(zero, word):
    """Above what 5% of all weights in use give, and at most half as far from all."""
    sparse = {name: array for name, array in RUN.items() if not name.startswith("idle")}
    sparse = ending("support_share", 0.05, ending("zero_weight_share", zero, sparse))
    assert zero_weights("8a", [sparse]).word == word


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (0.95, Word.REPRODUCED),
        (0.89, Word.PART),
        (0.51, Word.PART),
        (0.49, Word.FAILED),
        (math.nan, Word.UNDEFINED),
    ],
)
def test_shares_of_zero_weights(share, word):
    assert words(ending("zero_weight_share", share))["8b"] == word


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ({0: 95, 50: 5}, Word.REPRODUCED),
        ({19: 91, 20: 9}, Word.REPRODUCED),
        ({19: 60, 20: 40}, Word.PART),
        ({0: 40, 99: 60}, Word.FAILED),
        ({}, Word.UNDEFINED),
    ],
)
def test_learned_examples_and_none_of_them(counts, word):
    learned = np.zeros(100)
    learned[list(counts)] = list(counts.values())
    (verdict,) = (
        v for v in perceptron.verdicts([RUN | {"learned_counts": learned}]) if v.key == "9"
    )
    assert verdict.word == word
    assert (verdict.ours == "no such example") == (not counts)


def test_verdict_of_the_heat_map_needs_one():
    full = RUN | {"heat_map": np.full((5, 4), 1 / SIZE)}
    assert words(full)["10b"] == Word.FAILED
    assert words(full | {"heat_map": np.zeros((5, 4))})["10b"] == Word.REPRODUCED
    assert words(full | {"heat_map": np.repeat([0, 1], [3, 7]) / SIZE})["10b"] == Word.PART
    assert words(full | {"heat_map": np.full((5, 4), 0.11 / SIZE)})["10b"] == Word.FAILED
    assert words(full | {"heat_map": np.full((5, 4), 0.09 / SIZE)})["10b"] == Word.REPRODUCED
    # zeros at cells that do not contribute say nothing
    half = np.arange(20).reshape(5, 4) % 2
    masked = {"heat_map": half / SIZE, "heat_map_contributes": half.astype(bool)}
    assert words(full | masked)["10b"] == Word.FAILED
    assert near_zero_share(full | masked | {"heat_map_contributes": ~half.astype(bool)}) == 1
    assert math.isnan(near_zero_share(full | {"heat_map_contributes": np.zeros((5, 4))}))
    none = {name: array for name, array in RUN.items() if not name.startswith("heat_map")}
    assert words(none)["10b"] == Word.UNDEFINED


# tables


def test_verdicts_know_their_item_by_its_key():
    found = [Verdict("4b", "−8.0%", Word.REPRODUCED), Verdict("9", "none", Word.UNDEFINED)]
    rows = verdict_table(found).splitlines()
    assert rows[2] == "| Fig. 4b: change of AUC/T | about −7% | −8.0% | reproduced |"
    assert rows[3].startswith(f"| {ITEMS['9'].title} | more than 90% | none |")


def test_a_joint_row_counts_what_holds_in_one_setting():
    """Two settings that win an item each hold one, and no setting holds both."""
    one = [Verdict("4a", "", Word.REPRODUCED), Verdict("5a", "", Word.LARGER)]
    other = [Verdict("4a", "", Word.PART), Verdict("5a", "", Word.REPRODUCED)]
    undefined = [Verdict("9", "", Word.UNDEFINED), Verdict("8a", "", Word.REPRODUCED)]
    rows = joint_table({"one": one, "other": other, "third": [*one, *undefined]}).splitlines()
    assert rows[0] == "| setting | Fig. 4a | Fig. 5a | Fig. 9 | Fig. 8a | hold together |"
    assert rows[2:] == [
        "| one | ✓ | ↑ |  |  | 1 of 2 |",
        "| other | ~ | ✓ |  |  | 1 of 2 |",
        "| third | ✓ | ↑ | ? | ✓ | 2 of 3 |",
    ]


def test_every_verdict_has_a_mark_of_its_own():
    assert set(MARKS) == set(Word) and len(set(MARKS.values())) == len(Word)


def test_all_figures_of_an_experiment_are_judged():
    assert list(words(RUN)) == ["4b", "5b", "6b", "7b", "8b", "10b"]
    run = RUN | {"learned_counts": np.zeros(100)}
    assert list(words(run, report=perceptron)) == ["4a", "5a", "6a", "7a", "8a", "9", "10a"]
    assert words(RUN, RUN)["7b"] == Word.REPRODUCED
    assert EPOCHS > 5
