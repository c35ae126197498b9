"""The notebooks' parameter cells against the models that check them."""

import ast
import re

import pytest

from llbook.experiments.perceptron import PerceptronConfig
from llbook.publish.profiles import PROFILES, overrides
from llbook.runs.folders import repository_root

BOOK = repository_root() / "book"
CELL = re.compile(r"```\{code-cell\} ipython3\n:tags: \[parameters[^\]]*\]\n(.*?)```", re.DOTALL)
SHARED = ("intro", "objective", "optimal_policy", "perceptron")


def parameter_cell(name):
    """Name → (annotation, default, comment) of a notebook's parameters cell."""
    (source,) = CELL.findall((BOOK / f"{name}.md").read_text(encoding="utf-8"))
    comments = [line.partition("  # ")[2] for line in source.splitlines()]
    return {
        node.target.id: (
            node.annotation.id,
            ast.literal_eval(node.value),
            comments[node.lineno - 1],
        )
        for node in ast.parse(source).body
    }


@pytest.mark.parametrize("name", SHARED)
def test_every_parameter_is_typed_and_explained(name):
    for parameter, (annotation, default, comment) in parameter_cell(name).items():
        assert type(default).__name__ == annotation, parameter
        assert comment, parameter


def test_the_perceptron_notebook_has_the_config_one_to_one():
    cell = parameter_cell("perceptron")
    cell.pop("recompute_records")
    assert {name: default for name, (_, default, _) in cell.items()} == PerceptronConfig().flat()


@pytest.mark.parametrize("name", SHARED)
def test_defaults_and_profiles_are_valid(name):
    known = PerceptronConfig.parameters()
    cell = {n: default for n, (_, default, _) in parameter_cell(name).items() if n in known}
    PerceptronConfig.from_flat(cell)
    for profile in PROFILES:
        changes = overrides(profile, name)
        assert set(changes) <= set(parameter_cell(name))
        PerceptronConfig.from_flat(cell | {n: v for n, v in changes.items() if n in known})
