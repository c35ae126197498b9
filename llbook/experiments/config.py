"""Parameters of the experiments: validated, named twice, with a profile for each purpose.

A parameter has a dotted name (``search.epochs``) by which configurations and
run keys know it, and a flat one, its last part (``epochs``), by which a
notebook's ``parameters`` cell and plain papermill know it. Flat names are
unique within an experiment.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

__all__ = [
    "PROFILES",
    "CompanionConfig",
    "Experiment",
    "ExplorerConfig",
    "LanguageModelConfig",
    "ParameterError",
    "PerceptronConfig",
    "SpeedConfig",
    "SweepConfig",
    "allowed",
    "check_parameters",
    "from_notebook",
    "limits",
    "overrides",
]

PROFILES = ("smoke", "laptop", "paper")

# The first row of Table 2.
_ROW_1: dict[str, Any] = {
    "corpus": "tinystories",
    "size": 4096,
    "desired_size": 512,
    "length": 64,
    "vocabulary": 4000,
    "hidden": 128,
    "heads": 8,
    "steps": 1000,
    "epochs": 15,
    "step_size": 0.4,
    "measure_every": 3,
}

# What a profile changes in a notebook's own defaults, which are those of `laptop`.
_OVERRIDES: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "intro": {"size": 64, "dimension": 8, "desired_size": 64, "steps": 40, "epochs": 12},
        "objective": {"size": 64, "steps": 40},
        "compression": {"story_count": 12, "label_count": 256},
        "optimal_policy": {"size": 64, "dimension": 8, "steps": 30},
        "gradient_flow": {"halvings": 4},
        "learning_law": {
            "size": 64,
            "dimension": 8,
            "desired_size": 64,
            "steps": 60,
            "epochs": 60,
        },
        "maximum_principle": {
            "size": 6,
            "dimension": 3,
            "desired_size": 32,
            "steps": 30,
            "intervals": 24,
        },
        "perceptron": {
            "size": 128,
            "dimension": 16,
            "desired_size": 64,
            "steps": 60,
            "epochs": 12,
            "step_size": 5e-4,
            "measure_every": 2,
        },
        "language_model": {
            "corpus": "grammar",
            "size": 24,
            "desired_size": 16,
            "length": 12,
            "vocabulary": 120,
            "hidden": 8,
            "heads": 2,
            "steps": 12,
            "epochs": 3,
            "measure_every": 1,
        },
        "scaling_laws": {
            "corpus": "grammar",
            "size": 24,
            "desired_size": 16,
            "length": 12,
            "vocabulary": 120,
            "hidden": 8,
            "heads": 2,
            "steps": 24,  # fewer leave too few points for a law
            "epochs": 2,
            "measure_every": 1,
            "draws": 20,
        },
        "explorer": {
            "size": 64,
            "dimension": 8,
            "desired_size": 64,
            "steps": 40,
            "epochs": 12,
            "step_size": 5e-2,
            "lm_corpus": "grammar",
            "lm_size": 24,
            "lm_desired_size": 16,
            "lm_length": 12,
            "lm_vocabulary": 120,
            "lm_hidden": 8,
            "lm_heads": 2,
            "lm_steps": 12,
            "lm_epochs": 3,
        },
        "companion": {"profile": "smoke"},
    },
    "laptop": {},
    "paper": {
        "companion": {"profile": "paper"},
        "perceptron": {"recompute_records": True},
        "language_model": _ROW_1,
        "scaling_laws": _ROW_1,
    },
}


def overrides(profile: str, notebook: str) -> dict[str, Any]:
    """The flat parameters that ``profile`` sets in the notebook of this name.

    Raises:
        ValueError: an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    return dict(_OVERRIDES[profile].get(notebook, {}))


class ParameterError(ValueError):
    """A parameter that is unknown, of the wrong type or out of range."""


class _Section(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


class _Data(_Section):
    size: int = Field(4096, ge=1, le=2**20, description="N, training examples")
    desired_size: int = Field(
        4096, ge=1, le=2**20, description="K, desired and, again, test examples"
    )
    dimension: int = Field(128, ge=1, le=2**14, description="D, inputs of the perceptron")
    label_noise: float = Field(0.0, ge=0, le=0.5, description="share of training labels flipped")


class _Model(_Section):
    initialisation: Literal["linear", "normal", "zero"] = Field(
        "normal", description="θ_0: PyTorch's default for a linear layer, N(0, I), or zero"
    )


class _Training(_Section):
    learning_rate: float = Field(0.1, gt=0, le=1e3, description="η of Eq. 1")
    steps: int = Field(2000, ge=1, le=10**6, description="T, gradient steps of a training")


class _Search(_Section):
    epochs: int = Field(500, ge=0, le=10**6, description="updates of the policy")
    step_size: float = Field(5e-6, ge=0, le=1e6, description="ε of Eq. 6, for `objective`")
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="ε over the epochs: constant, or linear decay to zero"
    )
    objective: Literal["sum", "mean"] = Field(
        "sum", description="the J that ε belongs to: Σ_t L_dsr(θ_t), or that over T"
    )
    measure_every: int = Field(10, ge=1, le=10**6, description="epochs between measurements")


class Experiment(_Section):
    """Base of the configurations: flat names, dotted names and errors that name values."""

    @classmethod
    def parameters(cls) -> dict[str, str]:
        """Flat name → dotted name, in order."""
        names: dict[str, str] = {}
        for name, field in cls.model_fields.items():
            section = field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                names |= {inner: f"{name}.{inner}" for inner in section.model_fields}
            else:
                names[name] = name
        return names

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Flat name → type, default, bounds and meaning, in order."""
        fields: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            section = field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                fields |= section.model_fields
            else:
                fields[name] = field
        return fields

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Build from flat names; those left out keep their defaults.

        Raises:
            ParameterError: naming each offending parameter, the value got and
                what is allowed.
        """
        names = cls.parameters()
        check_parameters(values, names)
        nested: dict[str, Any] = {}
        for flat, value in values.items():
            section, _, inner = names[flat].rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[inner] = value
        try:
            return cls(**nested)
        except ValidationError as error:
            fields = cls.fields()
            lines = [
                f"{'.'.join(map(str, e['loc']))}: got {e['input']!r}; "
                f"expected {allowed(fields[str(e['loc'][-1])])}"
                if e["loc"]
                else str(e["ctx"]["error"])  # of several parameters together
                for e in error.errors()
            ]
            raise ParameterError("\n".join(lines)) from None

    def flat(self) -> dict[str, Any]:
        """Flat name → value, in order."""
        values: dict[str, Any] = {}
        for value in self.model_dump().items():
            values |= value[1] if isinstance(value[1], dict) else dict([value])
        return values


class PerceptronConfig(Experiment):
    """The perceptron experiment; defaults are the headline setting at the paper's scale."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0")
    data: _Data = _Data()
    model: _Model = _Model()
    training: _Training = _Training()
    search: _Search = _Search()
    precision: Literal["float32", "float64"] = Field("float32", description="of the search")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )


class _Stories(_Section):
    corpus: Literal["auto", "tinystories", "grammar"] = Field(
        "auto",
        description="the text: TinyStories by name, the built-in grammar, or whichever is at hand",
    )
    path: str = Field("", description="a file of stories (plain or .gz), in the place of `corpus`")
    size: int = Field(128, ge=2, le=2**20, description="N, training examples")
    desired_size: int = Field(
        128, ge=1, le=2**20, description="K, desired and, again, test examples"
    )
    length: int = Field(32, ge=2, le=1024, description="L, tokens predicted in an example")
    vocabulary: int = Field(
        400, ge=8, le=32_000, description="V, token types, UNK and PAD included"
    )
    perturbed_share: float = Field(0.5, ge=0, le=1, description="share of training examples spoilt")
    perturbations: int = Field(20, ge=0, le=1000, description="edits of a spoilt example")


class _LanguageModel(_Section):
    layers: int = Field(2, ge=1, le=48, description="blocks of the Transformer")
    hidden: int = Field(32, ge=2, le=8192, description="width of the residual stream")
    heads: int = Field(4, ge=1, le=128, description="attention heads; they divide `hidden`")
    attention_scale: Literal["head", "hidden"] = Field(
        "head", description="attention scores are divided by the root of this size"
    )
    initial_scale: float = Field(
        0.1, gt=0, le=100, description="standard deviation of the matrices of θ_0"
    )


class _LanguageTraining(_Section):
    learning_rate: float = Field(0.1, gt=0, le=1e3, description="η of Eq. 1")
    steps: int = Field(80, ge=1, le=10**6, description="T, gradient steps of a training")


class _LanguageSearch(_Section):
    epochs: int = Field(10, ge=0, le=10**6, description="updates of the policy")
    step_size: float = Field(8.0, ge=0, le=1e9, description="ε of Eq. 6, for `objective`")
    schedule: Literal["constant", "linear"] = Field(
        "linear", description="ε over the epochs: constant, or linear decay to zero"
    )
    objective: Literal["sum", "mean"] = Field(
        "mean", description="the J that ε belongs to: Σ_t L_dsr(θ_t), or that over T"
    )
    measure_every: int = Field(2, ge=1, le=10**6, description="epochs between measurements")


class _Computation(_Section):
    micro_batch: int = Field(256, ge=1, le=2**20, description="the most examples computed at once")
    trajectory: Literal["memory", "host", "checkpoints"] = Field(
        "memory",
        description="θ_0 … θ_T on the device, in the CPU's memory, or √T of them, the rest replayed",
    )
    policy_storage: Literal["float32", "uint16", "uint8"] = Field(
        "float32", description="what γ is rounded to after each update, and stored as"
    )


class LanguageModelConfig(Experiment):
    """The language-model experiment; the defaults are those of `laptop`."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0")
    data: _Stories = _Stories()
    model: _LanguageModel = _LanguageModel()
    training: _LanguageTraining = _LanguageTraining()
    search: _LanguageSearch = _LanguageSearch()
    computation: _Computation = _Computation()
    precision: Literal["float32", "float64", "bfloat16", "tf32"] = Field(
        "float32", description="of matrix products; sums and parameters are at least float32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.model.hidden % self.model.heads:
            raise ValueError(
                f"heads must divide hidden, got {self.model.heads} heads for {self.model.hidden}"
            )
        return self


class CompanionConfig(Experiment):
    """The page that holds the paper against the book."""

    profile: Literal["smoke", "laptop", "paper"] = Field(
        "laptop", description="whose run of each experiment is shown as this build's"
    )
    horizon: float = Field(
        1e7, ge=1, le=1e15, description="steps to which Figure 11 carries its laws on"
    )


class _ExplorerPerceptron(_Section):
    size: int = Field(256, ge=2, le=2**20, description="N, training examples")
    desired_size: int = Field(
        512, ge=1, le=2**20, description="K, desired and, again, test examples"
    )
    dimension: int = Field(16, ge=1, le=2**14, description="D, inputs of the perceptron")
    steps: int = Field(200, ge=1, le=10**6, description="T, gradient steps of a training")
    epochs: int = Field(500, ge=1, le=10**6, description="updates of the policy")
    step_size: float = Field(5e-3, ge=0, le=1e9, description="ε on the sum J")


class _ExplorerLanguage(_Section):
    lm_corpus: Literal["auto", "tinystories", "grammar"] = Field(
        "auto", description="the language model's text"
    )
    lm_size: int = Field(64, ge=2, le=2**20, description="N of the language model")
    lm_desired_size: int = Field(128, ge=1, le=2**20, description="K of the language model")
    lm_length: int = Field(32, ge=2, le=1024, description="L, tokens predicted in an example")
    lm_vocabulary: int = Field(350, ge=8, le=32_000, description="V, token types")
    lm_hidden: int = Field(32, ge=2, le=8192, description="width of the residual stream")
    lm_heads: int = Field(4, ge=1, le=128, description="attention heads; they divide `lm_hidden`")
    lm_steps: int = Field(40, ge=1, le=10**6, description="T of the language model")
    lm_epochs: int = Field(10, ge=1, le=10**6, description="updates of its policy")
    lm_step_size: float = Field(8.0, ge=0, le=1e9, description="ε on J/T, decaying to zero")


class ExplorerConfig(Experiment):
    """The two small searches of the policy explorer."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0 of both")
    perceptron: _ExplorerPerceptron = _ExplorerPerceptron()
    language: _ExplorerLanguage = _ExplorerLanguage()


class SweepConfig(Experiment):
    """The notebook that draws the table of a sweep."""

    table: str = Field("", description="table.csv of a sweep; empty: the recorded perceptron runs")
    over: str = Field("seed", description="the parameter that means are taken over")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")


class SpeedConfig(Experiment):
    """The notebook that shows the results of a benchmark."""

    path: str = Field("", description="results of a benchmark; empty: the recorded ones")


def limits(field: FieldInfo) -> str:
    """The values that a field may take, without its type: ``"1 to 1,048,576"``."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    bounds = {
        name: getattr(bound, name)
        for bound in field.metadata
        for name in ("ge", "gt", "le", "lt", "multiple_of")
        if hasattr(bound, name)
    }
    if field.annotation is int and "lt" in bounds:
        bounds["le"] = bounds.pop("lt") - 1
    # 1e6 is "1,000,000" as a float, too
    bounds = {name: f"{int(b) if b == int(b) else b:,}" for name, b in bounds.items()}
    phrases = []
    if {"ge", "le"} <= bounds.keys():
        phrases.append(f"{bounds.pop('ge')} to {bounds.pop('le')}")
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    words["multiple_of"] = "a multiple of"
    phrases += [f"{word} {bounds[name]}" for name, word in words.items() if name in bounds]
    return ", ".join(phrases)


def allowed(field: FieldInfo) -> str:
    """What a field accepts, in words: ``"an integer, 1 to 1,048,576"``."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(repr, get_args(field.annotation)))
    kinds: dict[Any, str] = {
        int: "an integer",
        float: "a finite number",
        str: "text",
        bool: "true or false",
    }
    return ", ".join(filter(None, [kinds[field.annotation], limits(field)]))


def check_parameters(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise :class:`ParameterError` for a name that is not known, with the nearest one."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ParameterError(f"unknown parameter {name!r} (value {given[name]!r}){hint}")


def from_notebook(
    variables: Mapping[str, Any], config: type[Experiment], **extra: type
) -> tuple[Experiment, dict[str, Any]]:
    """Read a notebook's parameters from its ``globals()`` right after the parameters cell.

    Everything defined so far that is neither a module, a function, a class nor
    IPython's own must be a parameter: papermill only warns of a name that the
    notebook does not know, so a misspelt one is caught here.

    Args:
        variables: the notebook's ``globals()``.
        config: the experiment's model.
        extra: further parameters of the notebook alone, name → type.

    Returns:
        The validated configuration, and the extra parameters.

    Raises:
        ParameterError: an unknown name, a wrong type, a value out of range.
    """
    own = {"In", "Out", "exit", "quit", "get_ipython", "open"}
    skip = types.ModuleType | types.FunctionType | types.BuiltinFunctionType | type
    given = {
        name: value
        for name, value in variables.items()
        if not name.startswith("_") and name not in own and not isinstance(value, skip)
    }
    check_parameters(given, config.parameters() | extra)
    rest = {name: given.pop(name) for name in extra if name in given}
    for name, value in rest.items():
        if type(value) is not extra[name]:
            raise ParameterError(f"{name}: got {value!r}; expected {extra[name].__name__}")
    return config.from_flat(given), rest
