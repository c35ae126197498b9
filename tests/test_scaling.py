"""Fitting scaling laws."""

import math

import numpy as np
import pytest

from llbook.experiments import scaling_report as report
from llbook.figures import scaling as figures
from llbook.figures.style import shown_data
from llbook.measures.scaling import (
    FEWEST,
    STRETCH,
    Law,
    acceleration,
    bootstrap,
    equation_9,
    fit,
)

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


def test_no_draws():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bootstrap(fit(STEPS, curve(50, 0.4)), draws=0)


def run(old, new, ratio=1.5):
    return {
        "curve_steps": STEPS,
        "test_curves": np.stack([old, (old + new) / 2, new]),
        "history_auc": np.array([c[1:].mean() for c in (old, new)]),
        "history_ar": np.array([1.0, ratio]),
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
        low, high = report.printed_interval(steps)["ar"]
        b1, b2 = draw.uniform(3.155e8, 3.165e8, 500), draw.uniform(1.985e7, 1.995e7, 500)
        beta1, beta2 = draw.uniform(0.115, 0.125, 500), draw.uniform(0.135, 0.145, 500)
        ratios = equation_9((b1, beta1), (b2, beta2), steps)
        assert low <= ratios.min() and ratios.max() <= high
        assert ratios.max() - ratios.min() > 0.7 * (high - low)
    assert report.printed_interval(4000)["beta"] == pytest.approx((0.08, 0.2609), abs=1e-4)


def test_verdicts_follow_the_numbers():
    old, new = BETTER["test_curves"][[0, -1]]
    good = report.scaling_of(run(old, new, 3.0), draws=2)
    better = report.scaling_of(run(old, new, 3.2), draws=2)
    worse = report.scaling_of(run(new, old), draws=2)

    def words(*rungs):
        return [verdict.word for verdict in report.verdicts(rungs, 1e7)]

    assert words([good], [better])[:2] == ["reproduced", "reproduced"]
    assert words([good], [better])[4] == "reproduced"
    assert words([better], [good])[4] == "not reproduced"
    assert words([good])[4] == "undefined"
    assert words([worse])[1:4] == ["not reproduced"] * 3
    assert words([good, worse, good])[1] == "in part"
    assert words([good])[6] == "not attempted at this scale"
    assert report.verdicts([[good]], 1e6)[6].word == "attempted"
    with pytest.raises(ValueError, match="got none"):
        report.verdicts([], 1e7)


def test_figures_draw_what_was_fitted():
    found = report.scaling_of(BETTER, draws=5)
    data = shown_data(figures.laws(found.found, found.draws, horizon=1e6))
    assert data.count("conventional") > 50 and "1000000" in data.replace(".0", "")
    assert "taken" in shown_data(figures.search(found.found, found.draws))
    drawn = figures.ladder(
        ["a", "paper"], [[-0.2], [-0.9]], [[0.1], [0.2]], [[1.5], [2.4]], [[1.4], []], paper=1
    )
    assert [tick.get_text() for tick in drawn.axes[0].get_yticklabels()] == ["a", "paper"]
