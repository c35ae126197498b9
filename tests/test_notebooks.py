"""The notebooks' parameter cells against the models that check them."""

import pytest
from conftest import parameter_cell

from llbook.experiments.perceptron import PerceptronConfig
from llbook.publish.profiles import PROFILES, overrides

SHARED = ("intro", "objective", "optimal_policy", "perceptron")


@pytest.mark.parametrize("name", SHARED)
def test_every_parameter_is_typed_and_explained(name):
    for parameter, (annotation, default, comment) in parameter_cell(name).items():
        assert type(default).__name__ == annotation, parameter
        assert comment, parameter


def test_the_perceptron_notebook_has_the_config_one_to_one():
    cell = parameter_cell("perceptron")
    cell.pop("recompute_records")
    own, usual = (
        {name: default for name, (_, default, _) in cell.items()},
        PerceptronConfig().flat(),
    )
    assert own.keys() == usual.keys()
    # the page shows a search that converges; the experiment's defaults are the printed one
    chosen = {"method", "epochs", "sparse_every"}
    assert {name for name in own if own[name] != usual[name]} <= chosen


@pytest.mark.parametrize("name", SHARED)
def test_defaults_and_profiles_are_valid(name):
    known = PerceptronConfig.parameters()
    cell = {n: default for n, (_, default, _) in parameter_cell(name).items() if n in known}
    PerceptronConfig.from_flat(cell)
    for profile in PROFILES:
        changes = overrides(profile, name)
        assert set(changes) <= set(parameter_cell(name))
        PerceptronConfig.from_flat(cell | {n: v for n, v in changes.items() if n in known})
