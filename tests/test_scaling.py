"""Fitting scaling laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up_runs import run_of

from llbook.figures import scaling as figures
from llbook.figures.style import shown_data
from llbook.measures.rivals import held_out_errors, law_is_best
from llbook.measures.scaling import (
    FEWEST,
    STRETCH,
    Law,
    NoLawError,
    acceleration,
    bootstrap,
    equation_9,
    fit,
    thinned,
)
from llbook.report import paper
from llbook.report import scaling as report
from llbook.report.verdicts import Word

STEPS = np.arange(0, 2001)


def curve(b, beta, l0=0.0, t0=0.0, steps=STEPS, noise=0.0, seed=0):
    """The law after t0, and a curve above it that falls more slowly before."""
    t = np.maximum(steps, 1).astype(float)
    power = (b / t) ** beta
    if t0:
        before = t <= t0
        power[before] = (b / t0) ** beta * (t0 / t[before]) ** (beta / 4)
    if noise:
        draw = np.random.default_rng(seed).normal(size=len(t))
        power = power * np.exp(noise * np.convolve(draw, np.ones(9) / 3, mode="same"))
    return l0 + power


@pytest.mark.parametrize(("b", "beta", "l0"), [(50.0, 0.4, 1.5), (3e8, 0.12, 0.0), (10, 1.1, 3.0)])
def test_a_law_is_found_again(b, beta, l0):
    found = fit(STEPS, curve(b, beta, l0), l0=l0).laws[0]
    assert found.beta == pytest.approx(beta, rel=1e-9)
    assert found.b == pytest.approx(b, rel=1e-6)
    assert found.r2 == pytest.approx(1, abs=1e-12)
    t = np.array([3.0, 70.0, 1e7])
    np.testing.assert_allclose(found(t), l0 + (b / t) ** beta, rtol=1e-8)


def test_the_search_leaves_out_what_is_no_law():
    """Which of the later starts it takes is left to r²; it is none of the earlier ones."""
    search = fit(STEPS, curve(200, 0.3, 2.0, t0=40))
    found = search.laws[0]
    assert found.t0 >= 35
    assert search.r2[:, search.starts < 20].max() < found.r2 - 1e-4
    assert found.l0 == pytest.approx(2.0, rel=0.05)
    assert found.beta == pytest.approx(0.3, rel=0.1)
    assert found.r2 > 0.9999


@pytest.mark.parametrize(
    ("b", "beta", "l0"),
    [(50.0, 0.4, 1.5), (200, 0.3, 2.0), (3.16e8, 0.12, 1.0), (3e8, 0.12, 0.051), (5, 0.6, 0.01)],
)
def test_l0_is_searched_finely_enough_for_b(b, beta, l0):
    for steps in (STEPS, np.arange(4001)):
        found = fit(steps, curve(b, beta, l0, steps=steps))
        assert found.laws[0].b == pytest.approx(b, rel=0.01)
        assert found.laws[0].l0 == pytest.approx(l0, rel=0.03)
        assert (np.diff(found.floors) >= 0).all() and found.r2.shape[0] == len(found.floors)
    draws = bootstrap(found, draws=3)
    np.testing.assert_allclose(draws.b, b, rtol=0.01)


def test_curves_share_t0_and_l0():
    old, new = curve(200, 0.3, 2.0, t0=40), curve(60, 0.35, 2.0, t0=40)
    found = fit(STEPS, [old, new])
    assert len({(law.t0, law.l0) for law in found.laws}) == 1
    g, s = np.unravel_index(found.r2.argmax(), found.r2.shape)
    assert (found.starts[s], found.floors[g]) == (found.laws[0].t0, found.laws[0].l0)
    assert found.r2.max() == pytest.approx(np.mean([law.r2 for law in found.laws]))
    alone = [fit(STEPS, one, t0=found.laws[0].t0, l0=found.laws[0].l0) for one in (old, new)]
    for law, one in zip(found.laws, alone, strict=True):
        assert one.laws[0].beta == pytest.approx(law.beta, rel=1e-12)


def test_r2_against_numpy():
    y = curve(90, 0.4, 1.0, noise=0.05)
    found = fit(STEPS, y, t0=20, l0=0.7)
    keep = found.steps > 20
    x, z = np.log(found.steps[keep]), np.log(found.losses[0, keep] - 0.7)
    slope, level = np.polyfit(x, z, 1)
    law = found.laws[0]
    assert law.beta == pytest.approx(-slope, rel=1e-9)
    assert law.beta * law.log_b == pytest.approx(level, rel=1e-9)
    assert law.r2 == pytest.approx(np.corrcoef(x, z)[0, 1] ** 2, rel=1e-9)


def test_few_points_do_not_win():
    """Every stretch tried is long enough, and the thinned steps are even in ln t."""
    found = fit(STEPS, curve(90, 0.4, 1.0, noise=0.05))
    for start in found.starts:
        left = found.steps[found.steps > start]
        assert len(left) >= FEWEST and left[-1] >= STRETCH * left[0]
    late = found.steps[found.steps > 100]
    assert np.ptp(np.diff(np.log(late))) < 0.02


@pytest.mark.parametrize("steps", [50.0, 4000.0, 1e7])
def test_acceleration_against_inversion(steps):
    old, new = Law(math.log(300), 0.3, 1.0, 0, 1), Law(math.log(80), 0.36, 1.0, 0, 1)
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if new(middle) > old(steps) else (low, middle)
    expected = steps / low
    assert acceleration(new, old, steps) == pytest.approx(expected, rel=1e-6)
    assert equation_9((300, 0.3), (80, 0.36), steps) == pytest.approx(expected, rel=1e-6)
    assert acceleration(old, old, steps) == pytest.approx(1)


def test_a_law_that_never_gets_there():
    old, new = Law(0.0, 1.0, 0.0, 0, 1), Law(0.0, 1.0, 0.5, 0, 1)
    assert math.isnan(acceleration(new, old, 100))


def test_bootstrap_covers_and_is_seeded():
    found = fit(STEPS, [curve(200, 0.3, 2.0, noise=0.02), curve(60, 0.35, 2.0, noise=0.02, seed=1)])
    draws = bootstrap(found, draws=100)
    assert draws.beta.shape == draws.log_b.shape == (100, 2)
    assert draws.l0.shape == draws.t0.shape == (100,)
    low, high = np.quantile(draws.beta, [0.02, 0.98], axis=0)
    assert (low < [0.3, 0.35]).all() and (high > [0.3, 0.35]).all()
    assert (high - low > 1e-3).all()
    again = bootstrap(found, draws=100)
    np.testing.assert_array_equal(again.beta, draws.beta)
    assert not np.array_equal(bootstrap(found, draws=100, seed=1).beta, draws.beta)
    t = [10.0, 100.0]
    np.testing.assert_allclose(draws.losses(1, t)[7], draws.law(7, 1)(t))


def test_bootstrap_of_an_exact_law_does_not_spread():
    draws = bootstrap(fit(STEPS, curve(50, 0.4, 1.5), l0=1.5), draws=20)
    np.testing.assert_allclose(draws.beta, 0.4, rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "losses", "options", "message"),
    [
        (STEPS, curve(50, 0.4)[:-1], {}, r"got \(2001,\) and \(2000,\)"),
        (STEPS[::-1], curve(50, 0.4), {}, "must rise"),
        (STEPS, -curve(50, 0.4), {}, "positive and finite, got -"),
        (STEPS, np.full(2001, np.nan), {}, "positive and finite, got nan"),
        (STEPS[:13], curve(50, 0.4)[:13], {}, "got 12 points from 1 to 12"),
        (STEPS, curve(50, 0.4), {"t0": 1500}, "t0: got 1500"),
        (STEPS, curve(50, 0.4, 1.0), {"l0": 9.0}, r"below the least loss, got 9"),
        (STEPS, np.linspace(1, 2, 2001), {}, "does not fall"),
    ],
)
def test_bad_input_is_named(steps, losses, options, message):
    with pytest.raises(ValueError, match=message):
        fit(steps, losses, **options)


@pytest.mark.parametrize("losses", [np.linspace(1, 2, 2001), np.full(2001, np.inf)])
def test_what_is_wrong_with_a_curve_is_told_from_a_wrong_call(losses):
    with pytest.raises(NoLawError):
        fit(STEPS, losses)
    with pytest.raises(ValueError, match="l0") as raised:
        fit(STEPS, curve(50, 0.4, 1.0), l0=-1.0)
    assert not isinstance(raised.value, NoLawError)


def test_a_search_that_ends_at_its_border_says_so():
    y = curve(200, 0.3, 2.0, noise=0.02)
    assert fit(STEPS, y).at_border == (False, False)
    assert fit(STEPS, y, t0=10, l0=1.0).at_border == (False, False)
    # a faster and faster fall: the later the better, and no floor at all
    faster = np.exp(-0.15 * np.log(np.maximum(STEPS, 1)) ** 2)
    assert fit(STEPS, faster).at_border == (True, True)


def test_a_law_that_hardly_falls_overflows_nothing():
    flat = 3 - 1e-6 * np.log(np.maximum(STEPS, 1))
    found = fit(STEPS, [flat, flat - 1e-4], t0=0, l0=1.0)
    draws = bootstrap(found, draws=5)
    assert found.laws[0].b == np.inf and np.isinf(draws.b).all()
    assert acceleration(found.laws[1], found.laws[0], 2000) > 1e9


def test_draws_that_do_not_fall_have_no_law():
    """Noise far above a slight fall: some resampled curves rise."""
    noise = np.random.default_rng(0).normal(0, 0.1, len(STEPS))
    found = fit(STEPS, 5 * np.maximum(STEPS, 1) ** -0.01 * np.exp(noise), t0=0, l0=0.0)
    draws = bootstrap(found, draws=200)
    lost = np.isnan(draws.beta[:, 0])
    assert 0 < lost.sum() < 200
    assert np.isnan(draws.l0[lost]).all() and np.isnan(draws.log_b[lost]).all()
    assert (draws.beta[~lost] > 0).all() and np.isfinite(draws.t0[~lost]).all()


T_ = np.maximum(STEPS, 1).astype(float)
RIVALS = {
    "power law with L₀": curve(200, 0.3, 2.0),
    "power law": curve(3e8, 0.12),
    "exponential with L₀": 2 + 3 * np.exp(-T_ / 300),
    "exponential": 9 * np.exp(-T_ / 900),
    "a / ln t with L₀": 1 + 8 / np.log(T_ + (T_ < 2)),
    "a / ln t": 8 / np.log(T_ + (T_ < 2)),
}


@pytest.mark.parametrize("form", RIVALS)
def test_each_form_is_told_from_the_others_on_steps_held_out(form):
    errors = held_out_errors(STEPS, RIVALS[form])
    assert set(errors) == set(RIVALS)
    assert errors[form] < 1e-6
    assert errors[form] <= 1.01 * min(errors.values()) or errors[form] < 1e-7
    assert law_is_best(errors) == [form.startswith("power")]


def test_r2_does_not_tell_forms_apart():
    """Why the law is held against others at all."""
    for name in ("exponential with L₀", "a / ln t with L₀", "a / ln t"):
        assert fit(STEPS, RIVALS[name]).laws[0].r2 > 0.99, name


def test_held_out_steps_do_not_enter_the_fits():
    """What comes after half of the steps changes the errors, and by as much as it is off."""
    broken = np.where(STEPS > 1000, 9.0, RIVALS["exponential"])
    t = thinned(STEPS, broken)[0]
    late = t[t > 1000]
    expected = np.sqrt(np.mean((9 - 9 * np.exp(-late / 900)) ** 2))
    assert held_out_errors(STEPS, broken)["exponential"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(NoLawError, match="got 12 points from 1 to 12"):
        held_out_errors(STEPS[:26], broken[:26])


def test_forms_of_curves_that_fall_late():
    """From t_0 > 745 on an exponential of t itself is zero in every place."""
    late = 8 * STEPS[STEPS > 0]
    falls = 0.5 + np.minimum(1, 1000 / late) ** 0.3
    errors = held_out_errors(late, falls)
    assert all(np.isfinite(found).all() for found in errors.values())
    assert float(errors["power law with L₀"][0]) < 1e-6


def test_no_draws():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bootstrap(fit(STEPS, curve(50, 0.4)), draws=0)


def run(old, new, ratio=1.5):
    return {
        "curve_steps": STEPS,
        "test_curves": np.stack([old, (old + new) / 2, new]),
        "history_auc": np.array([c[1:].mean() for c in (old, new)]),
        "history_desired_auc": np.array([c[1:].mean() for c in (old, new)]),
        "history_ar": np.array([1.0, ratio]),
        "history_epoch": np.array([0, 15]),
    }


BETTER = run(curve(200, 0.3, 2.0, t0=40), curve(60, 0.35, 2.0, t0=40))


def test_changes_of_a_run():
    """Of the first and the last policy, not of those between."""
    found = report.scaling_of(BETTER, draws=10)
    assert found.steps == 2000 and found.measured == 1.5
    assert found.beta_change == pytest.approx(0.35 / 0.3 - 1, rel=0.1)
    assert found.b_change < -0.5
    assert found.change == pytest.approx(BETTER["history_auc"][1] / BETTER["history_auc"][0] - 1)
    exact = equation_9((200, 0.3), (60, 0.35), 2000)
    assert found.predicted() == pytest.approx(float(exact), rel=0.05)
    assert found.predicted_draws().shape == (10,)


def test_what_the_printed_digits_leave_open():
    """No B and β that round to Table 1's give a ratio outside the interval."""
    draw = np.random.default_rng(0)
    for steps in (4000, 1e7, 1e12):
        low, high = paper.printed_interval(steps)["ar"]
        b1, b2 = draw.uniform(3.155e8, 3.165e8, 500), draw.uniform(1.985e7, 1.995e7, 500)
        beta1, beta2 = draw.uniform(0.115, 0.125, 500), draw.uniform(0.135, 0.145, 500)
        ratios = equation_9((b1, beta1), (b2, beta2), steps)
        assert low <= ratios.min() and ratios.max() <= high
        assert ratios.max() - ratios.min() > 0.7 * (high - low)
    assert paper.printed_interval(4000)["beta"] == pytest.approx((0.08, 0.2609), abs=1e-4)


GOOD = report.scaling_of(BETTER, draws=1)


def test_the_best_policy_by_then_counts():
    """A search whose updates raise J returns to what it began with."""
    history = {"epoch": [0, 5, 6], "ar": [1.0, math.nan, 1.0], "desired_auc": [4.0, 4.2, 4.0]}
    run = BETTER | {f"history_{name}": np.array(values) for name, values in history.items()}
    assert report.scaling_of(run, draws=1).course == {0: 1.0, 5: 1.0, 6: 1.0}


def judged(*rungs):
    return {verdict.key: verdict for verdict in report.verdicts(rungs)}


def changed(*, b=1.0, beta=1.0, **values):
    """``GOOD`` with B and β of the near-optimal law these times those of the conventional one."""
    old, new = GOOD.found.laws
    new = replace(new, log_b=old.log_b + math.log(b), beta=old.beta * beta)
    return replace(GOOD, found=replace(GOOD.found, laws=(old, new)), **values)


def test_verdicts_on_the_ladder():

    def ratios(**after):
        return replace(GOOD, course={int(updates[1:]): ar for updates, ar in after.items()})

    better, never = ratios(_0=1.0, _15=2.0), ratios(_0=1.0, _15=math.nan)

    def word(*rungs):
        return judged(*rungs)["table-2-ar"].word

    assert word([GOOD], [better]) == Word.REPRODUCED
    assert word([better], [GOOD]) == Word.FAILED
    assert word([GOOD], [ratios(_0=1.0, _15=3.0)], [better]) == Word.PART
    assert word([GOOD]) == Word.SMALLER
    assert word([GOOD], [never]) == Word.UNDEFINED
    # rungs are compared after as many updates in each
    long, short = ratios(_0=1.0, _5=1.5, _15=2.0), ratios(_0=1.0, _5=1.6)
    assert word([long], [short]) == Word.REPRODUCED
    assert judged([long], [short])["table-2-ar"].ours == "1.50 → 1.60 after 5 updates"
    assert judged([GOOD], [better])["table-2-ar"].ours == "1.50 → 2.00"
    assert judged([GOOD], [], [better])["table-2-ar"].ours == "1.50 → 2.00"
    apart = judged([GOOD], [ratios(_0=1.0, _7=2.5)])["table-2-ar"]
    assert apart.word == Word.UNDEFINED and apart.ours == "never measured after as many updates"
    with pytest.raises(ValueError, match="got none"):
        report.verdicts([])


@pytest.mark.parametrize(
    ("curves", "word"),
    [
        (("power law with L₀", "power law"), Word.REPRODUCED),
        (("power law", "exponential with L₀"), Word.FAILED),
        (("exponential", "a / ln t with L₀"), Word.FAILED),
    ],
)
def test_a_power_law_has_to_beat_its_rivals_and_not_to_be_straight(curves, word):
    old, new = (RIVALS[name] for name in curves)
    verdict = judged([report.scaling_of(run(old, new), draws=1)])["table-1"]
    assert verdict.word == word
    held = sum(name.startswith("power") for name in curves)
    assert verdict.ours.startswith(f"nearest on held-out steps for {held} of 2 curves; r² ")


def test_a_power_law_in_most_curves_is_one_in_part():
    other = report.scaling_of(run(RIVALS["power law"], RIVALS["exponential with L₀"]), draws=1)
    assert judged([GOOD, other])["table-1"].word == Word.PART
    early = replace(GOOD, misses={})  # too short to hold steps out: not shown for it
    assert judged([GOOD, early])["table-1"].word == Word.FAILED
    assert judged([GOOD, GOOD, early])["table-1"].word == Word.PART
    assert judged([early])["table-1"].word == Word.SMALLER
    assert "too few steps" in judged([early])["table-1"].ours


def test_directions_of_b_and_beta():
    right, wrong = changed(b=0.1, beta=1.2), changed(b=0.1, beta=0.9)
    assert judged([right])["tables-1-2"].word == Word.REPRODUCED
    assert judged([right, right, wrong])["tables-1-2"].word == Word.PART
    assert judged([right, wrong])["tables-1-2"].word == Word.FAILED
    assert judged([changed(b=1.1, beta=1.2)])["tables-1-2"].word == Word.FAILED


@pytest.mark.parametrize(
    ("b", "word", "ours"),
    [
        (1 / 15, Word.REPRODUCED, "−93.3%; B₁/B₂ = 15"),
        (1 / 20, Word.REPRODUCED, "−95.0%; B₁/B₂ = 20"),
        (1 / 30, Word.LARGER, "−96.7%; B₁/B₂ = 30"),
        (1 / 30_000, Word.LARGER, "−100.0%"),
        (1 / 4, Word.PART, "−75.0%"),
        (2, Word.FAILED, "+100.0%"),
    ],
)
def test_the_fall_of_b_is_judged_where_its_relative_change_is_saturated(b, word, ours):
    """ΔB/B of a factor of 30 and of 30,000 differ by three per cent of it only."""
    assert GOOD.b_fall == pytest.approx(math.log(200 / 60), rel=0.1)
    verdict = judged([changed(b=b)])["table-2-b"]
    assert verdict.word == word and verdict.ours.startswith(ours)


@pytest.mark.parametrize(
    ("beta", "word"),
    [(1.16, Word.REPRODUCED), (1.3, Word.LARGER), (1.05, Word.PART), (0.9, Word.FAILED)],
)
def test_the_rise_of_beta_has_to_have_the_papers_size(beta, word):
    assert judged([changed(beta=beta)])["table-2-beta"].word == word


@pytest.mark.parametrize(
    ("factor", "word"),
    [
        (1.0, Word.REPRODUCED),
        (1.09, Word.REPRODUCED),
        (1 / 1.09, Word.REPRODUCED),
        (1.12, Word.PART),
        (1 / 1.12, Word.PART),
        (1.49, Word.PART),
        (1.51, Word.FAILED),
        (math.nan, Word.FAILED),
    ],
)
def test_equation_9_agrees_within_a_tenth(factor, word):
    exact = replace(GOOD, measured=GOOD.predicted())
    off = replace(GOOD, measured=GOOD.predicted() * factor)
    assert judged([exact, off])["eq-9"].word == word


def test_an_extrapolation_needs_a_growing_ratio():
    right, wrong = changed(b=0.1, beta=1.2), changed(b=0.1, beta=0.9)
    for runs, word in (
        ([right], Word.REPRODUCED),
        ([right, right, wrong], Word.PART),
        ([wrong], Word.FAILED),
    ):
        assert judged(runs)["11"].word == word
    # a search that found nothing: the laws are one up to rounding
    assert judged([right, changed(b=1 - 1e-15, beta=1 + 1e-15)])["11"].word == Word.FAILED


def test_what_rivals_miss_is_shown_by_form_and_policy():
    rows = report.rivals_table([GOOD, GOOD]).splitlines()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]] == list(RIVALS)
    assert "too few steps" in report.rivals_table([replace(GOOD, misses={})])


SHORT = BETTER | {name: BETTER[name][..., :11] for name in ("curve_steps", "test_curves")}


def test_a_run_without_a_law_says_why():
    none = report.scaling_of(SHORT, draws=2)
    assert none.found is None and none.steps == 10 and none.measured == 1.5
    assert math.isnan(none.b_change) and math.isnan(none.predicted())
    assert report.interval(none.predicted_draws()) == report.NO_LAW
    assert "got 10 points from 1 to 10" in report.law_sentence(none)
    label, *cells = report.law_row("a run", [none])
    assert label.endswith("no law in 1 of 1") and set(cells) == {report.NO_LAW}
    b, beta, measured, predicted, change = report.rung_row([none])
    assert (b, beta, measured, predicted) == (report.NO_LAW, report.NO_LAW, "1.50", report.NO_LAW)
    assert change.startswith("−")
    assert report.border_sentence([none]) == ""
    found = judged([none])
    assert len(found) == 7
    assert {verdict.word for verdict in found.values()} == {Word.SMALLER}
    assert found["table-2-ar"].ours == "1.50"


def test_runs_of_which_one_has_no_law():
    good, none = report.scaling_of(BETTER, draws=2), report.scaling_of(SHORT, draws=2)
    alone = report.law_row("", [good])
    assert report.law_row("", [good, none]) == ["; no law in 1 of 2", *alone[1:]]
    assert report.rung_row([good, none])[0] == report.rung_row([good])[0]
    whole, part = judged([good]), judged([good, none])
    assert whole["table-1"].word == whole["tables-1-2"].word == Word.REPRODUCED
    assert part["table-1"].word == part["tables-1-2"].word == Word.FAILED
    assert part["table-1"].ours.endswith("; no law in 1")
    assert part["eq-9"].word == Word.FAILED


def test_a_search_that_found_nothing_is_idle():
    area = {"history_desired_auc": np.array([4.0, 4.2, 4.0])}
    assert report.idle(run_of(BETTER | area))
    assert not report.idle(run_of(BETTER | {"history_desired_auc": np.array([4.0, 3.9])}))


def test_sentences_follow_the_numbers():
    good = report.scaling_of(BETTER, draws=2)
    worse = report.scaling_of(run(*BETTER["test_curves"][[-1, 0]]), draws=2)
    assert "as in the paper" in report.law_sentence(good)
    assert "B does not fall and β does not grow" in report.law_sentence(worse)
    noisy = [curve(200, 0.3, 2.0, noise=0.02), curve(60, 0.35, 2.0, noise=0.02)]
    inside = report.scaling_of(run(*noisy), draws=2)
    start = "In 2 recorded runs, the search ends at the last t₀ that it may try in "
    end = "and at the least or the greatest L₀ in "
    assert report.border_sentence([inside, inside]) == f"{start}0, {end}0."
    faster = np.exp(-0.15 * np.log(np.maximum(STEPS, 1)) ** 2)
    border = report.scaling_of(run(faster, 0.9 * faster), draws=2)
    there = f"1, {end}1: there the highest r² is no maximum."
    assert report.border_sentence([inside, border]) == start + there
    assert report.border_sentence([border], kind="live") == (
        start.replace("2 recorded runs", "1 live run") + there
    )


def test_how_far_seeds_are_apart():
    good = report.scaling_of(BETTER, draws=2)
    worse = report.scaling_of(run(*BETTER["test_curves"][[-1, 0]]), draws=2)
    (old, _), (new, _) = good.found.laws, worse.found.laws
    found = report.apart([[good, worse], [good], []])
    assert found["b"] == pytest.approx(old.b / new.b)
    assert found["beta"] == pytest.approx(new.beta / old.beta)
    assert math.isnan(report.apart([[good]])["b"])
    far = replace(old, log_b=-40_000.0)
    small = replace(good, found=replace(good.found, laws=(far, far)))
    assert report.apart([[good, small]])["b"] == math.inf


def test_ratio_from_relative_changes():
    """The coefficients themselves cancel but for B of conventional learning."""
    b, beta, steps = -0.937, 0.187, 4000
    value, low, high = paper.from_changes(b, beta, steps)
    for own in (0.115, 0.12, 0.125):
        exact = equation_9((3.16e8, own), (3.16e8 * (1 + b), own * (1 + beta)), steps)
        assert value == pytest.approx(float(exact))
    draw = np.random.default_rng(0).uniform(-1, 1, (3, 500))
    b1 = 3.16e8 + 0.005e8 * draw[0]
    b2, ratio = b1 * (1 + b + 5e-4 * draw[1]), 1 + beta + 5e-4 * draw[2]
    drawn = [float(equation_9((x, 1), (y, z), steps)) for x, y, z in zip(b1, b2, ratio)]
    assert low <= min(drawn) < value < max(drawn) <= high
    assert max(drawn) - min(drawn) > 0.7 * (high - low)


def test_figures_without_a_law_and_beyond_it():
    data = shown_data(figures.no_law(STEPS, BETTER["test_curves"][[0, -1]]))
    assert data.count("near-optimal") == data.count("conventional") == len(STEPS)
    found = report.scaling_of(BETTER, draws=2)
    with pytest.raises(ValueError, match="beyond the last step, 2000, got 100"):
        figures.laws(found.found, found.draws, horizon=100)


def test_figures_draw_what_was_fitted():
    found = report.scaling_of(BETTER, draws=5)
    data = shown_data(figures.laws(found.found, found.draws, horizon=1e6))
    assert data.count("conventional") > 50 and "1000000" in data.replace(".0", "")
    assert "taken" in shown_data(figures.search(found.found, found.draws))
    drawn = figures.ladder(
        ["a", "paper"], [[-0.2], [-0.9]], [[0.1], [0.2]], [[1.5], [2.4]], [[1.4], []], paper=1
    )
    assert [tick.get_text() for tick in drawn.axes[0].get_yticklabels()] == ["a", "paper"]
