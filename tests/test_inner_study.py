"""The comparison of optimisers: what is in a run, and what its numbers mean."""

import numpy as np
import pytest

from llbook.experiments.inner import (
    CHANGES,
    INNER,
    LENGTHS,
    OTHER,
    InnerConfig,
    LanguageInnerConfig,
)
from llbook.experiments.inner import LANGUAGE_MODEL as LANGUAGE
from llbook.measures.objective import acceleration_ratio, loss_auc
from llbook.optimal import search as searching
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import search
from llbook.parameters import ParameterError

TOY = {"size": 24, "desired_size": 32, "dimension": 4, "steps": 12, "epochs": 8, "measure_every": 4}
NAMES = ["gradient-descent", "sgd", "momentum", "adam"]


@pytest.fixture(scope="module")
def arrays():
    return INNER.compute(InnerConfig.from_flat(TOY))


def test_every_policy_is_held_against_every_optimiser(arrays):
    assert arrays["names"].tolist() == NAMES
    for name in ("desired", "test", "ar"):
        assert arrays[name].shape == (5, 4)
    np.testing.assert_array_equal(arrays["ar"][0], 1)
    own = arrays["desired"][1:].diagonal()
    assert (own < arrays["desired"][0]).all()
    # what the search found is what is transferred
    np.testing.assert_allclose(own, arrays["history_desired"][:, -1], rtol=1e-5)
    np.testing.assert_allclose(arrays["desired"][0], arrays["history_desired"][:, 0], rtol=1e-5)
    best = np.nanargmin(arrays["rate_final"], 1)
    np.testing.assert_array_equal(arrays["rates"], arrays["rate_grid"][best])


def test_a_transfer_by_hand(arrays):
    """Momentum's policy under Adam, and under its own training from another θ_0."""
    config = InnerConfig.from_flat(TOY)
    task = INNER.build(config)
    task.learning_rate = float(arrays["rates"][2])
    inner = config.inner_of("momentum")
    options = config.search_options() | {"inner": inner}
    searches = [search(task, 12, **options | {"rate": rate}) for rate in LENGTHS]
    policy = min(searches, key=lambda one: one.history[-1]["objective"]).policy
    other = INNER.build(config.model_copy(update={"seed": OTHER}))
    usual = constant_policy(task, 12)

    def tested(inner, policy):
        return task.trajectory_losses(train(task, policy, inner=inner).trajectory, task.test)

    first, task.initial = task.initial, other.initial
    pair = tested(inner, usual), tested(inner, policy)
    place = CHANGES.index("θ_0")
    assert [loss_auc(one) for one in pair] == arrays["changed_test"][2, place].tolist()
    assert acceleration_ratio(*pair[::-1]) == pytest.approx(
        arrays["changed_ar"][2, place], nan_ok=True
    )
    task.initial, task.learning_rate = first, float(arrays["rates"][3])
    assert loss_auc(tested(config.inner_of("adam"), policy)) == arrays["test"][3, 3]


def test_only_batches_have_an_order_and_only_they_change_the_length_of_a_step(arrays):
    ordered = ~np.isnan(arrays["changed_test"][:, CHANGES.index("batches"), 0])
    assert [name for name, has in zip(NAMES, ordered, strict=True) if has] == ["sgd"]
    assert not np.isnan(arrays["changed_test"][:, 1:]).any()
    lengths = arrays["measured_length"]
    assert lengths[1, 1] > 1.01
    np.testing.assert_allclose(np.delete(lengths, 1, 0), 1, rtol=1e-5)
    assert lengths[1, 0] == pytest.approx(1, rel=1e-5)


def test_the_two_products_differ_for_adam_alone(arrays):
    one, other = arrays["measured_similarity"], arrays["measured_preconditioned_similarity"]
    np.testing.assert_allclose(one[:3], other[:3], rtol=1e-3)
    assert not np.allclose(one[3], other[3], rtol=1e-3)
    assert arrays["curves"].shape == (4, 2, 13) and arrays["similarity"].shape == (4, 2, 12)
    assert len(arrays["curve_steps"]) == 13 and len(arrays["measured_steps"]) == 12


def test_interrupted_it_goes_on(arrays, tmp_path, monkeypatch):
    config, path = InnerConfig.from_flat(TOY), tmp_path / "run.safetensors"
    proposed, real = 0, searching.train

    def failing(*args, **options):
        nonlocal proposed
        proposed += 1
        if proposed == 13:  # in the second search
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(searching, "train", failing)
    with pytest.raises(KeyboardInterrupt):
        INNER.compute(config, checkpoint=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "gradient-descent-0.1-run.safetensors",
        "gradient-descent-0.3-run.safetensors",
    ]
    proposed = 100
    again = INNER.compute(config, checkpoint=path)
    resumed, proposed = proposed - 100, 100
    assert not list(tmp_path.iterdir())
    INNER.compute(config)
    assert resumed < proposed - 100 - 10, "what was done before is done again"
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_it_has_no_policy_to_be_deposited(tmp_path):
    """A search of its configuration would be of gradient descent, at a rate of its own."""
    (name, *_) = INNER.recorded_configs()
    with pytest.raises(ValueError, match=f"'{name}' is no recorded run of one policy"):
        INNER.deposit(name, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_the_language_model_is_compared_too():
    flat = {"corpus": "grammar", "size": 8, "desired_size": 4, "length": 8, "vocabulary": 40}
    flat |= {"hidden": 8, "heads": 2, "layers": 1, "steps": 4, "epochs": 3, "measure_every": 2}
    arrays = LANGUAGE.compute(LanguageInnerConfig.from_flat(flat | {"optimizers": "adam,sgd"}))
    assert arrays["test"].shape == (3, 2) and not np.isnan(arrays["test"]).any()


def test_parameters_are_checked():
    with pytest.raises(ParameterError, match="optimizers: got 'adm'; did you mean 'adam"):
        InnerConfig.from_flat({"optimizers": "sgd,adm"})
    with pytest.raises(ParameterError, match="batches: got 8; expected at most N = 4"):
        InnerConfig.from_flat({"size": 4})
    with pytest.raises(ParameterError, match="batches: got 8; N = 15 in batches of 1 makes 15"):
        InnerConfig.from_flat({"size": 15})
    with pytest.raises(ParameterError, match="rate: got 0.05; expected its default, 0.3"):
        InnerConfig.from_flat({"rate": 0.05})
    with pytest.raises(ParameterError, match="learning_rate: got 0.5; expected its default, 0.1"):
        InnerConfig.from_flat({"learning_rate": 0.5})
    with pytest.raises(ParameterError, match="optimizer: got 'adam', batch: got 0; expected"):
        InnerConfig.from_flat({"optimizer": "adam"})
    inner = InnerConfig.from_flat({"beta1": 0.5, "weight_decay": 0.1}).inner_of("adamw")
    assert (inner.optimizer, inner.beta1, inner.weight_decay) == ("adamw", 0.5, 0.1)
    assert InnerConfig().inner_of("sgd").batch == 128
