"""Parameters: typed, checked, named twice.

A parameter has a dotted name (``search.epochs``) by which configurations and
run keys know it, and a flat one, its last part (``epochs``), by which a
notebook's ``parameters`` cell and plain papermill know it. Flat names are
unique within an experiment.
"""

from __future__ import annotations

import difflib
import numbers
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

__all__ = [
    "FileName",
    "ParameterError",
    "Parameters",
    "Section",
    "allowed",
    "check_names",
    "check_parameters",
    "from_notebook",
    "is_file",
    "limits",
    "listed",
    "nearest",
]


FileName = Annotated[str, Field(json_schema_extra={"format": "path"})]
"""The name of a file; empty where there is none."""


class ParameterError(ValueError):
    """A parameter that is unknown, of the wrong type or out of range."""


class Section(BaseModel):
    """A group of parameters within a configuration."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


class Parameters(Section):
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
            if section:  # an experiment's defaults may differ from those of the section
                usual = dict(cls.model_fields[section].default)
                nested.setdefault(section, usual)[inner] = value
            else:
                nested[inner] = value
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

    @classmethod
    def require(cls, config: object) -> None:
        """Refuse what is no configuration of this kind.

        Raises:
            TypeError: it is not.
        """
        if not isinstance(config, cls):
            raise TypeError(
                f"expected a {cls.__name__}, which {cls.__name__}.from_flat makes, "
                f"got {type(config).__name__}"
            )

    def flat(self) -> dict[str, Any]:
        """Flat name → value, in order."""
        values: dict[str, Any] = {}
        for value in self.model_dump().items():
            values |= value[1] if isinstance(value[1], dict) else dict([value])
        return values


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


def is_file(field: FieldInfo) -> bool:
    """Whether a field is a :data:`FileName`."""
    return field.json_schema_extra == {"format": "path"}


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
    for name, value in given.items():
        if name not in known:
            hint = nearest(name, known)
            raise ParameterError(f"unknown parameter {name!r} (value {value!r}); {hint}")


def whole_number(name: str, value: Any, least: int) -> int:
    """A value as an int, whichever library's whole number it is.

    Raises:
        ValueError: it is none, or below ``least``; the message has both, and the name.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name: ``"did you mean 'seed'?"``, or all that are known."""
    near = difflib.get_close_matches(name, known := list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def listed(text: str) -> list[str]:
    """The names of a parameter that has several, with commas; each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def check_names(field: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise unless all ``names`` are known.

    Raises:
        ValueError: one is not; the message has the parameter ``field``, the name and what may be meant.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{field}: got {name!r}; {nearest(name, known)}")


def from_notebook(
    variables: Mapping[str, Any], config: type[Parameters], **extra: type
) -> tuple[Parameters, dict[str, Any]]:
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
    given = {
        name: value
        for name, value in variables.items()
        if not name.startswith("_")
        and name not in own
        and not (callable(value) or isinstance(value, types.ModuleType))
    }
    check_parameters(given, config.parameters() | extra)
    rest = {name: given.pop(name) for name in extra if name in given}
    for name, value in rest.items():
        if type(value) is not extra[name]:
            raise ParameterError(f"{name}: got {value!r}; expected {extra[name].__name__}")
    return config.from_flat(given), rest
