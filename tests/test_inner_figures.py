"""What pages say and draw of other optimisers."""

import math

import numpy as np
import pytest

from llbook.figures import inner as figures
from llbook.figures import style
from llbook.report import inner as report
from llbook.runs.run import Run

WORDS = {"gradient-descent": "gradient descent", "adam": "Adam"}


def run(rate, saving):
    """A record of two optimisers whose own policies save that share of the area."""
    area = np.array([[2.0, 4.0], [2 * (1 - saving), 5.0], [3.0, 4 * (1 - saving)]])
    changed = np.stack([np.ones((2, 3)), np.full((2, 3), 0.75)], -1)
    changed[0, 0] = math.nan
    arrays = {
        "names": np.array(["gradient-descent", "adam"]),
        "rates": np.array([rate, 0.5]),
        "test": area,
        "desired": area,
        "rate_area": np.array([[math.nan, 1.5, 2.0], [8.0, 4.0, math.nan]]),
        "ar": np.full((3, 2), 2.0),
        "changed_test": changed,
        **{f"measured_{kind}similarity": np.full((2, 2), 3.0) for kind in KINDS},
    }
    return Run("one", "inner", {}, {}, arrays)


KINDS = ("", "preconditioned_", "future_")


def test_a_policy_against_equal_weights_at_the_rate_of_their_least_area():
    own = run(0.1, 0.5)
    assert report.against_least(own) == pytest.approx(
        np.array([[1 - 1 / 1.5, 1 - 5 / 4], [1 - 3 / 1.5, 1 - 2 / 4]])
    )
    assert [report.mean_of(runs) for runs in ([own], [own, own])] == ["one seed", "mean of 2 seeds"]


def test_the_rate_that_saves_as_much_is_interpolated_in_logarithms():
    factors, areas = np.array([1.0, 4.0, 16.0]), np.array([100.0, 10.0, 1.0])
    assert report.equal_rate(factors, areas, 10**1.5) == pytest.approx(2)
    assert report.equal_rate(factors, areas, 100.0) == 1
    assert report.equal_rate(factors, areas, 1.0) == pytest.approx(16)
    assert math.isnan(report.equal_rate(factors, areas, 0.5))
    diverged = np.array([100.0, math.nan, 1.0])
    assert math.isnan(report.equal_rate(factors, diverged, 10.0))
    rising = np.array([10.0, 5.0, 20.0])
    assert 1 < report.equal_rate(factors, rising, 6.0) < 4


def test_what_is_saved_is_of_the_sum():
    assert report.saved(1.0, 4.0) == 0.75
    assert report.saved(np.array([1.0, 2.0]), np.array([1.0, 5.0])) == 0.5
    assert report.saved(5.0, 4.0) == -0.25


def test_a_line_of_the_summary_is_an_optimiser():
    header, rows = report.summary([run(0.1, 0.5), run(0.2, 0.7)], WORDS)
    assert [row[0] for row in rows] == ["gradient descent", "Adam"]
    of = dict(zip(header, rows[0], strict=True))
    assert of["rate"] == "0.1, 0.2"
    assert of["saved"] == "60% (50 to 70)"
    assert of["new order"] == "–"
    assert of["new data"] == "25% (25 to 25)"


def test_transfer_is_the_mean_share_of_the_area():
    names, columns, cells = report.mean_transfer([run(0.1, 0.5), run(0.2, 0.7)], WORDS)
    assert names == columns == ["gradient descent", "Adam"]
    np.testing.assert_allclose(cells, [[0.6, -0.25], [-0.5, 0.6]])
    figure = figures.transfer(names, columns, cells)
    assert {"+60%", "−25%", "−50%"} <= {text.get_text() for text in figure.axes[0].texts}


def test_figures_show_what_they_are_given():
    curve = np.array([2.0, 1.0, 0.5])
    data = style.shown_data(figures.curves({"Adam": (curve, curve / 2)}))
    assert "Adam,step t,desired loss (nats),searched,2,0.25" in data
    assert "SGD" in style.shown_data(figures.gradient_norms({"SGD": (curve, curve)}))
    assert "Adam,1,0.5" in style.shown_data(figures.levels({"Adam": np.array([-1.0, 0.5])}))
    factors = np.array([1.0, 4.0])
    rates = figures.rates(factors, {"Adam": curve[:2]}, factors[:1], {"Adam": curve[2:]})
    assert "Adam: searched,1,0.5" in style.shown_data(rates)
    gains = figures.gains_over_orders({"one": math.nan}, {"one": np.array([0.25, -0.5])})
    assert "other orders,-0.5,0" in style.shown_data(gains)
