"""Figures, tables and the study of the language-model page, on runs made up for the purpose."""

import io
import math

import numpy as np
import pytest
from made_up_runs import SIZE, STEPS, made_up, run_of

from llbook.experiments.language_model import LanguageModelConfig
from llbook.figures import language_model as figures
from llbook.figures import perceptron as shared
from llbook.publish.schema import schema
from llbook.report.language_model import (
    comparison,
    corpus_notice,
    gain_sentence,
    setting_label,
    stories_table,
    study_change,
    study_parameters,
    study_rows,
    used_examples,
)
from llbook.report.numbers import small_print
from llbook.runs.folders import repository_root

RUN = made_up()


def drawn(figure):
    """A figure that can be written, as it stands after that."""
    figure.savefig(io.BytesIO(), format="svg")
    return figure


# figures


def test_relative_weights_are_one_on_average_and_keep_the_order():
    weight = figures.relative_weights(RUN)
    assert weight.mean() == pytest.approx(1)
    assert np.array_equal(np.argsort(weight), np.argsort(RUN["example_weight"]))
    assert np.all(weight[:3] == 0)


def test_clean_weights_stand_beside_the_share_of_clean_examples():
    axes = drawn(figures.clean_weights(RUN)).axes[0]
    *policies, reference = axes.lines
    assert [line.get_ydata()[0] for line in policies] == pytest.approx([56, 62, 68, 74, 80])
    assert reference.get_ydata()[0] == 50
    assert "50%" in reference.get_label()


def test_example_weights_by_distance_show_the_mean_of_each_distance():
    left, right = drawn(figures.example_weights(RUN)).axes
    distances, means = left.lines[2].get_data()
    assert list(distances) == sorted(set(RUN["edits"]))
    clean = figures.relative_weights(RUN)[~RUN["perturbed"]]
    assert means[0] == pytest.approx(clean.mean())
    assert sum(len(line.get_xdata()) for line in right.lines[:2]) == SIZE


def test_quantiles_of_the_weights_show_zero_and_one():
    axes = drawn(figures.weight_quantiles(RUN)).axes[0]
    assert np.all(axes.lines[0].get_ydata() == 0)
    assert axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low <= 0 < RUN["weight_spread"].max() <= high


def test_settings_gains_place_a_mark_per_seed():
    figure = drawn(
        figures.settings_gains(
            ["one", "two"],
            [[-0.05, -0.06], [0.01]],
            [[-0.1, -0.1], [-0.02]],
            [[2.0, 2.5], [math.nan]],
            paper=(-0.07, 2.41),
        )
    )
    left, right = figure.axes
    assert list(left.lines[0].get_xdata()) == pytest.approx([-5, -6])
    assert [label.get_text() for label in left.get_yticklabels()] == ["one", "two"]
    assert right.lines[-1].get_xdata()[0] == 2.41


def test_study_gains_draw_a_line_per_group_and_a_cross_for_what_diverged():
    figure = drawn(
        figures.study_gains(
            [0.4, 0.1, 0.1, 0.4],
            ["η = 1", "η = 1", "η = 2", "η = 2"],
            [-0.03, -0.01, -0.02, math.nan],
            [-0.04, -0.02, -0.03, math.nan],
            label="ε",
        )
    )
    axes = figure.axes[0]
    assert list(axes.lines[0].get_xdata()) == [0.1, 0.4]
    assert axes.lines[1].get_linestyle() == ":" and axes.lines[1].get_marker() != "None"
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[], [0.4]]
    with pytest.raises(ValueError, match=r"one value of each kind a trial, got \[1, 2\]"):
        figures.study_gains([1.0, 2.0], ["a", "a"], [0.1], [0.1, 0.2], label="ε")


def test_attention_scales_draw_each_curve():
    axes = drawn(figures.attention_scales(np.arange(3), {"a": np.ones(3), "b": np.zeros(3)})).axes
    assert [line.get_label() for line in axes[0].lines] == ["a", "b"]


def test_the_perceptrons_figures_serve_the_language_model():
    curves = drawn(shared.loss_curves(RUN, paper_ratio=2.41, from_zero=False)).axes[0]
    assert "ΔAUC −8.0%" in curves.texts[0].get_text()
    assert curves.get_ylim()[0] > 0
    never = drawn(shared.loss_curves(RUN | {"history_ar": RUN["history_ar"] * math.nan})).axes[0]
    assert "never" in never.texts[0].get_text()
    left, right = drawn(shared.search_progress(RUN, from_zero=False)).axes
    assert left.get_ylim()[0] > 0 and right.get_ylim()[0] > 0
    assert (
        drawn(shared.similarity_against_loss(RUN, scale="linear")).axes[0].get_xscale() == "linear"
    )
    for figure in (
        shared.similarity_against_compression(RUN),
        shared.zero_weights(RUN),
        shared.first_order_gaps(RUN),
    ):
        assert len(drawn(figure).axes) == 2


def test_a_fit_is_drawn_only_where_it_says_something():
    ratio = np.linspace(4, 7, 30)
    (_, b, power), quality = shared.compression_fit(ratio, np.log(2 / (7.5 - ratio) ** 0.4))
    assert (b, power) == (pytest.approx(7.5, rel=1e-3), pytest.approx(0.4, rel=1e-3))
    assert quality > 0.999
    falling = np.log(2 / (7.5 - ratio) ** 0.4)[::-1]
    noise = np.random.default_rng(0).normal(size=30)
    for values in (falling, noise, np.ones(30) + 1e-3 * noise):
        assert shared.compression_fit(ratio, values) is None
    assert shared.compression_fit(ratio[:4], ratio[:4]) is None


def test_the_heat_map_names_the_steps_it_shows_and_bears_weights_that_are_all_zero():
    image = drawn(shared.early_heat_map(RUN)).axes[0].images[0]
    assert image.get_extent()[:2] == [-0.5, STEPS - 2 + 0.5]
    empty = drawn(shared.early_heat_map(RUN | {"heat_map": np.zeros((3, 4))}))
    assert not empty.axes[0].images


# tables and text


def test_the_sentence_says_which_way_it_came_out():
    assert "gains on the test set" in gain_sentence([made_up(fall=0.08)])
    assert "gains nothing measurable" in gain_sentence([made_up(fall=0.001)])
    assert "it loses" in gain_sentence([made_up(fall=-0.08)])
    assert "did not descend there either" in gain_sentence([made_up(fall=-0.08)])
    assert "over-fitting" in gain_sentence([made_up(fall=0.08)])
    near = RUN | {"history_desired_auc": 0.998 * RUN["history_auc"]}
    assert "over-fitting" not in gain_sentence([near])
    assert "each of 2 seeds" in gain_sentence([made_up(fall=0.08), made_up(fall=0.07)])


def test_comparison_has_a_column_per_setting_and_the_papers_in_both_units():
    header, rows = comparison(
        {"live": [run_of(RUN)], "recorded": [run_of(RUN), run_of(made_up(fall=0.04))]}
    )
    assert header == ["", "live", "recorded", "paper"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["ΔAUC (test)"] == ["−8.0%", "−6.0% (−8.0 to −4.0)", "about −7%"]
    assert cells["CR before → after (one unit)"][-1] == "2.08 → 2.25"
    assert cells["AR (running minima)"][-1] == "2.41"
    assert cells["largest SIM of the last policy"] == ["3.5", "3.5 (3.5–3.5)", "about 6"]
    assert all(len(row) == 4 for row in rows)


def test_small_print_names_the_text_and_the_changed_parameters_only():
    line = small_print(run_of(RUN, steps=33), "language_model", LanguageModelConfig()).data
    assert "language_model · steps = 33 · run language_model-0" in line
    assert "text: file, SHA-256 abababababab<" in line
    assert "corpus_stories" not in line


def test_the_grammar_is_not_passed_off_as_tinystories():
    assert "Not TinyStories" in corpus_notice(run_of(RUN, corpus="grammar"))
    assert "Not" not in corpus_notice(run_of(RUN, corpus="tinystories"))
    assert "local file" in corpus_notice(run_of(RUN, corpus="file"))
    assert "1,234 stories" in corpus_notice(run_of(RUN, corpus="file"))
    with pytest.raises(ValueError, match="got 'novels'"):
        corpus_notice(run_of(RUN, corpus="novels"))


def test_most_and_least_used_examples():
    arrays = RUN | {
        "example_weight": np.array([0.0, 3, 1, 0, 2, 5]),
        "example_contribution": np.array([-1.0, 0, 0, -2, 0, 0]),
    }
    most, least = used_examples(arrays, 2)
    assert list(most) == [5, 1]
    assert list(least) == [3, 0]  # both unused: the one that would have harmed more is first
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"must be 1 to 3 for 6 examples, got {count}"):
            used_examples(arrays, count)


def test_stories_are_escaped():
    html = stories_table(RUN, [5], ["<b>$x$ & co</b>"], "most used").data
    assert "&lt;b&gt;$x$ &amp; co&lt;/b&gt;" in html
    assert "tex2jax_ignore" in html
    with pytest.raises(ValueError, match="zip"):
        stories_table(RUN, [5, 6], ["one"], "most used")


# the study


def test_a_study_as_a_table():
    """A line per point; what diverged says so."""
    nan = math.nan
    arrays = {
        "learning_rate": np.array([0.5, 0.5, 2.0]),
        "step_size": np.array([0.4, 10.0, 0.4]),
        "history_auc": np.array([[4.0, 3.88], [4.0, 4.04], [nan, nan]]),
        "history_desired_auc": np.array([[4.0, 3.8], [4.0, 3.9], [nan, nan]]),
        "history_ar": np.array([[1.0, 1.2], [1.0, nan], [nan, nan]]),
        "course_ar": np.ones((3, 2), np.float32),
        "seconds": np.array([1.0, 1.0, nan]),
    }
    study = run_of(arrays)
    assert study_parameters(study) == ["learning_rate", "step_size"]
    header, rows = study_rows(study)
    assert header[:2] == ["learning_rate", "step_size"]
    assert rows[0] == ["0.5", "0.4", "4.00 → 3.88", "−3.0%", "−5.0%", "1.20"]
    assert rows[1][-1] == "never"
    assert rows[2] == ["2", "0.4", "diverged", "–", "–", "–"]
    np.testing.assert_allclose(study_change(study, "auc"), [-0.03, 0.01, nan])


def test_runs_are_not_changed_by_drawing():
    before = {name: array.copy() for name, array in RUN.items()}
    for function in (figures.clean_weights, figures.example_weights, figures.weight_quantiles):
        drawn(function(RUN))
    assert all(np.array_equal(before[name], RUN[name], equal_nan=True) for name in before)


# the page


def test_the_notebooks_parameters_are_those_of_the_config():
    page = schema(repository_root() / "book", "language_model").parameters
    assert {name: part.default for name, part in page.items()} == LanguageModelConfig().flat()
    assert all(parameter.meaning for parameter in page.values())


def test_a_setting_at_another_rate_says_so():
    usual, other = ([run_of(RUN, **changes)] for changes in ({}, {"learning_rate": 0.25}))
    assert setting_label(usual) == "T = 80, N = 128, V = 400"
    assert setting_label(other) == "T = 80, N = 128, V = 400, η = 0.25"
