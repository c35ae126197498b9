"""Parameters: names, types and ranges are checked before anything is trained."""

import types

import pytest

from llbook.experiments.language_model import LANGUAGE_MODEL, LanguageModelConfig
from llbook.experiments.perceptron import PERCEPTRON, PerceptronConfig
from llbook.optimal.inner import PLAIN, Inner
from llbook.parameters import ParameterError, from_notebook
from llbook.publish.profiles import overrides


def test_flat_and_dotted_names_correspond():
    names = PerceptronConfig.parameters()
    assert names["epochs"] == "search.epochs" and names["seed"] == "seed"
    config = PerceptronConfig()
    assert list(config.flat()) == list(names)
    assert PerceptronConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "unknown parameter 'stepz'.*did you mean 'steps'"),
        ({"steps": 0}, "training.steps: got 0; expected an integer, 1 to 1,000,000$"),
        ({"step_size": -1e-6}, "search.step_size: got -1e-06; .* 0 to 1,000,000"),
        ({"learning_rate": 0}, "got 0; expected a finite number, above 0, at most 1,000"),
        ({"seed": 2**31}, "expected an integer, 0 to 2,147,483,647"),
        ({"step_size": float("nan")}, "search.step_size: got nan"),
        ({"seed": "3"}, "seed: got '3'.*integer"),
        ({"seed": True}, "seed: got True"),
        ({"size": 2.5}, "data.size: got 2.5"),
        ({"label_noise": 0.7}, "data.label_noise: got 0.7.*, 0 to 0.5$"),
        ({"schedule": "cosine"}, "search.schedule: got 'cosine'.*'constant'"),
        ({"precision": "float16"}, "precision: got 'float16'"),
        ({"optimizer": "sgd"}, "inner.optimizer: got 'sgd'; expected one of 'gradient-descent'"),
        ({"beta2": 1.0}, "inner.beta2: got 1.0; expected a finite number, at least 0, below 1"),
        ({"weight_decay": -0.1}, "inner.weight_decay: got -0.1; expected a finite number, 0 to"),
        ({"batch": 65, "size": 64}, r"^batch must be at most N = 64 examples .*, got 65$"),
        ({"batch": 8, "sparse_every": 50}, "sparse_every: .* expected 0 with batch = 8, got 50$"),
        ({"warmup": 9, "steps": 8}, "^warmup must be at most T = 8 steps, got 9$"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ParameterError, match=message):
        PerceptronConfig.from_flat(values)


def test_parameters_that_do_not_go_together():
    with pytest.raises(ParameterError, match=r"^heads must divide hidden, got 3 heads for 32$"):
        LanguageModelConfig.from_flat({"heads": 3})


def test_a_run_of_the_papers_training_says_nothing_of_the_optimiser():
    """So that its key is that of before."""
    usual, adam = PerceptronConfig(), PerceptronConfig.from_flat({"optimizer": "adam"})
    assert "inner" not in usual.settings()
    assert adam.settings()["inner"]["optimizer"] == "adam"
    assert {**adam.settings(), "inner": None} == {**usual.settings(), "inner": None}
    assert usual.search_options()["inner"] == PLAIN
    inner = PerceptronConfig.from_flat(
        {"optimizer": "adamw", "adam_epsilon": 1e-3, "rate_schedule": "cosine"}
        | {"batch": 7, "batch_seed": 5, "warmup": 2, "weight_decay": 0.1, "beta1": 0.5}
    ).search_options()["inner"]
    rest = {"batch": 7, "seed": 5, "warmup": 2, "weight_decay": 0.1, "beta1": 0.5}
    assert inner == Inner("adamw", epsilon=1e-3, schedule="cosine", **rest)


def test_an_integer_will_do_for_a_float():
    assert PerceptronConfig.from_flat({"learning_rate": 1}).training.learning_rate == 1.0


def test_from_notebook_sees_what_papermill_lets_through():
    run = PERCEPTRON.run
    names = {"__name__": "__main__", "In": [], "_i1": "", "os": types, "run": run}
    names |= {"seed": 3, "flag": True}
    config, extra = from_notebook(names, PerceptronConfig, flag=bool)
    assert config.seed == 3 and extra == {"flag": True}
    with pytest.raises(ParameterError, match="unknown parameter 'sede'.*'seed'"):
        from_notebook(names | {"sede": 4}, PerceptronConfig, flag=bool)
    with pytest.raises(ParameterError, match="flag: got 'true'; expected bool"):
        from_notebook(names | {"flag": "true"}, PerceptronConfig, flag=bool)


def test_profiles():
    assert overrides("laptop", "perceptron") == {}
    assert overrides("smoke", "no-such-notebook") == {}
    with pytest.raises(ValueError, match="smoke, laptop, paper, got 'huge'"):
        overrides("huge", "perceptron")
    smoke = overrides("smoke", "perceptron")
    assert PerceptronConfig.from_flat(smoke).data.size < 4096


def test_recorded_settings_are_valid_and_distinct():
    configs = PERCEPTRON.recorded_configs()
    assert len({config.model_dump_json() for config in configs.values()}) == len(configs)
    assert len(configs) >= 3 * 3


@pytest.mark.parametrize("experiment", [PERCEPTRON, LANGUAGE_MODEL], ids=lambda one: one.name)
def test_a_task_is_built_of_its_own_configuration_alone(experiment):
    name = experiment.config.__name__
    with pytest.raises(TypeError, match=f"expected a {name}, which .* makes, got dict"):
        experiment.build({"seed": 1})
