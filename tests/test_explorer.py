"""What the interactive figures are made from: the sample of a policy, and its way into the page and back."""

import json
import re

import numpy as np
import pytest
from conftest import parameter_cell

from llbook.experiments.explorer import EXAMPLES, STEPS, ExplorerConfig, perceptron_explorer, sample
from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.figures import explorer as figures
from llbook.optimal.search import search
from llbook.publish.profiles import PROFILES, overrides

SMALL = {"size": 300, "dimension": 4, "desired_size": 20, "steps": 120, "step_size": 1e-2}


def as_arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def found():
    """Task, last epoch of a short search, and what is kept of it."""
    config = PerceptronConfig.from_flat(SMALL | {"epochs": 4, "precision": "float64"})
    task, kept = build_task(config), {}

    def last(epoch):
        if epoch.number == 4:
            kept["policy"] = epoch.policy.clone()
            kept["epoch"] = epoch
            kept["sample"] = as_arrays(sample(task, epoch) | {"conventional": epoch.test})

    search(task, 120, epochs=4, step_size=1e-2, measure_every=4, callback=last)
    return task, kept["policy"], kept["sample"]


def test_sample_is_of_the_policy_itself(found):
    task, policy, kept = found
    assert kept["weights"].shape == kept["contributions"].shape == (EXAMPLES, STEPS)
    assert kept["steps"][0] == 0 and kept["steps"][-1] == 119
    assert len(set(kept["examples"])) == EXAMPLES
    expected = policy.numpy()[np.ix_(kept["steps"], kept["examples"])].T * task.size
    np.testing.assert_allclose(kept["weights"], expected, rtol=1e-5)
    np.testing.assert_array_equal(kept["support"], (policy != 0).sum(1).numpy()[kept["steps"]])
    assert (kept["idle_without_weight"] <= kept["idle"]).all()
    assert kept["near_optimal"].shape == (121,)


def test_examples_stand_in_the_order_of_their_use(found):
    _, policy, kept = found
    weights = policy.numpy()[:, kept["examples"]]
    with np.errstate(invalid="ignore"):
        middle = np.arange(120) @ weights / weights.sum(0)
    used = ~np.isnan(middle)
    assert (np.diff(middle[used]) >= -1e-9).all()
    assert not used[used.sum() :].any()


def test_a_small_problem_is_kept_whole():
    config = PerceptronConfig.from_flat(
        {"size": 5, "dimension": 2, "desired_size": 4, "steps": 3, "epochs": 1}
    )
    task, kept = build_task(config), []

    def measure(epoch):
        kept.append(as_arrays(sample(task, epoch)))

    search(task, 3, epochs=0, step_size=1.0, callback=measure)
    assert sorted(kept[0]["examples"]) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(kept[0]["weights"], 1, rtol=1e-6)
    assert (kept[0]["support"] == task.size).all()


def test_run_is_stored_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LLBOOK_BUILD", str(tmp_path))
    config = ExplorerConfig.from_flat(SMALL | {"epochs": 2})
    one, other = perceptron_explorer(config), perceptron_explorer(config)
    assert one.id == other.id and one.kind == "explorer-perceptron"
    np.testing.assert_array_equal(one.arrays["weights"], other.arrays["weights"])


def test_weights_come_back_and_zero_stays_zero():
    draw = np.random.default_rng(0)
    weights = draw.exponential(size=(30, 7)) ** 4 * (draw.random((30, 7)) > 0.4)
    weights[:, 3] = 0
    weights[0, 0] = 1e-30
    text, top = figures.pack_weights(weights)
    back = figures.unpack_weights(text, top)
    np.testing.assert_array_equal(back == 0, weights == 0)
    np.testing.assert_allclose(np.sqrt(back), np.sqrt(weights), atol=np.sqrt(max(top)) / 255)
    np.testing.assert_allclose(back.max(0), weights.max(0))


def test_signed_numbers_come_back_with_their_sign():
    numbers = np.random.default_rng(1).normal(size=(30, 5)) ** 3
    numbers[:2, 0] = [1e-12, -1e-12]
    numbers[2, 1] = 0
    numbers[:, 4] = 0
    text, top = figures.pack_signed(numbers)
    back = figures.unpack_signed(text, top)
    np.testing.assert_array_equal(np.sign(back), np.sign(numbers))
    np.testing.assert_allclose(back, numbers, atol=max(top) / 127)


@pytest.mark.parametrize(
    ("pack", "bad", "message"),
    [
        (figures.pack_weights, [[-1.0]], "at least 0"),
        (figures.pack_weights, [[np.nan]], "finite"),
        (figures.pack_signed, [[np.inf]], "finite"),
    ],
)
def test_what_cannot_be_packed_is_refused(pack, bad, message):
    with pytest.raises(ValueError, match=message):
        pack(np.array(bad))


def data_of(element):
    return json.loads(re.search(r"<script[^>]*>(.*)</script>", element.data, re.DOTALL)[1])


def test_element_holds_its_data_and_is_light(found):
    kept = found[2] | {"perturbed": np.arange(EXAMPLES) % 2 == 0}
    kept["similarity"] = kept["similarity"].copy()
    kept["similarity"][0] = np.nan
    element = figures.explorer(kept, name="one", label="A </script> label")
    assert element.data.count("</script>") == 1
    assert len(element.data) < 200_000
    data = data_of(element)
    assert data["label"] == "A </script> label" and data["length"] == 120
    assert data["similarity"][0] is None and sum(data["perturbed"]) == EXAMPLES // 2
    back = figures.unpack_weights(data["weights"], data["weightTops"])
    np.testing.assert_array_equal(back == 0, kept["weights"] == 0)
    assert "interactive-fallback" in element.data


def test_law_in_three_dimensions_is_the_drawing():
    data = data_of(figures.law_3d())
    assert len(data["across"]) == len(data["unequal"]) == len(data["equal"]) == 3
    assert len(set(data["equal"])) == 1 < len(set(data["unequal"]))


def test_still_shows_curves_and_weights(found):
    figure = figures.still(found[2])
    left, right = figure.axes[:2]
    assert len(left.lines) == 2
    assert right.images[0].get_array().shape == (EXAMPLES, STEPS)


def test_parameters_of_the_page():
    cell = parameter_cell("explorer")
    assert {name: default for name, (_, default, _) in cell.items()} == ExplorerConfig().flat()
    for profile in PROFILES:
        ExplorerConfig.from_flat(overrides(profile, "explorer"))
