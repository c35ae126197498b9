"""What a notebook may be given: the schema of its parameters, read from its text.

The ``parameters`` cell has the names, types, defaults and meanings; the model that the
notebook itself hands them to, ``from_notebook(globals(), MODEL, …)``, has the dotted names
and the ranges. So they cannot disagree with what the notebook will check. A notebook that
shows the run of an experiment names it in its front matter, ``experiment: perceptron``.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import nbformat
import yaml
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from llbook.parameters import ParameterError, Parameters, from_notebook, is_file, limits, nearest
from llbook.publish.notebooks import (
    NotebookError,
    code_cells,
    front_matter,
    is_notebook,
    parameters_cell,
    read_text_notebook,
)

if TYPE_CHECKING:
    import llbook.experiments.experiment
    from llbook.runs.run import Run

__all__ = [
    "Parameter",
    "Schema",
    "UnknownName",
    "assignment",
    "notebook_name",
    "notebook_names",
    "overview",
    "read_file",
    "read_points",
    "schema",
]


class UnknownName(LookupError):
    """No notebook or run of that name, or none that has what was asked for."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a notebook.

    Attributes:
        name: dotted, as configurations have it: ``search.epochs``.
        short: its last part, as the notebook has it: ``epochs``.
        default: the notebook's own.
        field: type and bounds.
        meaning: one line.
    """

    name: str
    short: str
    default: Any
    field: FieldInfo
    meaning: str

    @property
    def type(self) -> str:
        return type(self.default).__name__

    def described(self) -> dict[str, Any]:
        """As JSON has it; bounds and choices under JSON Schema's names."""
        kind: Any = Annotated[self.field.annotation, self.field]
        schema = TypeAdapter(kind).json_schema()
        return {
            "name": self.name,
            "short": self.short,
            "range": limits(self.field)
            or ("true, false" if self.field.annotation is bool else "any"),
            **{name: bound for name, bound in schema.items() if name != "description"},
            "type": self.type,
            "default": self.default,
            "meaning": self.meaning,
        }


@dataclass(frozen=True)
class Schema:
    """What a notebook may be given.

    Attributes:
        notebook: its name.
        parameters: short name → parameter, in order.
        model: the configuration that the notebook makes of them.
        extra: those that are not the model's, with their types.
        experiment: name of the one whose run it shows, if any.
    """

    notebook: str
    parameters: dict[str, Parameter]
    model: type[Parameters]
    extra: dict[str, type]
    experiment: str | None

    def resolve(self, name: str, value: Any = None) -> str:
        """The short name of a dotted or short one.

        Raises:
            ParameterError: there is none such; the nearest is named, and ``value``.
        """
        if name in self.parameters:
            return name
        dotted = {parameter.name: short for short, parameter in self.parameters.items()}
        if name in dotted:
            return dotted[name]
        last = name.rpartition(".")[2]
        if inside := [one for one in dotted if one.startswith(f"{name}.")]:
            raise ParameterError(
                f"{name}: got {value!r}; expected a value for each of {', '.join(inside)}"
            )
        if not self.parameters:
            hint = f"{self.notebook} has none"
        elif last in self.parameters:
            hint = f"did you mean {self.parameters[last].name!r}?"
        else:
            hint = nearest(name, dict.fromkeys([*dotted, *self.parameters]))
        raise ParameterError(f"unknown parameter {name!r} (value {value!r}); {hint}")

    def values(self, given: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """Short name → value, checked as the notebook will check it.

        Args:
            given: names, dotted or short, and values; of equal names the last
                one counts. Text for a parameter that is not text is read as its type.

        Raises:
            ParameterError: naming every unknown name, or every bad value with
                what is allowed.
        """
        values, unknown = {}, []
        for name, value in given:
            try:
                short = self.resolve(name, value)
            except ParameterError as error:
                unknown.append(str(error))
                continue
            values[short] = _read(value, type(self.parameters[short].default))
        if unknown:
            raise ParameterError("\n".join(unknown))
        self.config(values)
        for short, value in values.items():
            if value and is_file(self.parameters[short].field):
                if not Path(value).is_file():
                    raise ParameterError(
                        f"{self.parameters[short].name}: got {value!r}; "
                        "expected the name of a file that exists"
                    )
                values[short] = str(Path(value).absolute())  # notebooks run elsewhere
        return values

    def config(self, values: Mapping[str, Any]) -> Parameters:
        """The configuration that the notebook makes of its defaults with ``values`` changed.

        Raises:
            ParameterError: a wrong type, a value out of range.
        """
        defaults = {short: p.default for short, p in self.parameters.items()}
        return from_notebook(defaults | dict(values), self.model, **self.extra)[0]

    def run(self, values: Mapping[str, Any], *, progress: bool = False) -> Run:
        """The run of its experiment for these parameters, from the run store where it is there.

        Raises:
            UnknownName: it shows none.
        """
        return self.stored_experiment().run(self.config(values), progress=progress)

    def stored_experiment(self) -> llbook.experiments.experiment.Experiment[Any]:
        """The experiment whose run the notebook shows.

        Raises:
            UnknownName: it shows none, or one that is not registered.
            NotebookError: the notebook does not take the experiment's parameters.
        """
        from llbook.experiments.experiment import registry

        if self.experiment is None:
            raise UnknownName(
                f"{self.notebook} computes what it shows in the page and stores no run"
            )
        known = registry()
        if self.experiment not in known:
            hint = nearest(self.experiment, known)
            raise UnknownName(f"{self.notebook}: no experiment {self.experiment!r}; {hint}")
        experiment = known[self.experiment]
        if experiment.config is not self.model:
            raise NotebookError(
                f"{self.notebook}: got parameters of {self.model.__name__}; "
                f"the experiment {self.experiment!r} expects {experiment.config.__name__}"
            )
        return experiment


def notebook_names(source: Path) -> list[str]:
    """The text notebooks below ``source``."""
    return sorted(
        path.relative_to(source).with_suffix("").as_posix()
        for path in source.rglob("*.md")
        if is_notebook(path)
    )


def notebook_name(source: Path, given: str) -> str:
    """The name of the notebook that was asked for, by name or by path.

    Raises:
        UnknownName: there is none such; the nearest is named.
    """
    names = notebook_names(source)
    path = Path(given)
    if path.suffix == ".md" and path.resolve().is_relative_to(source.resolve()):
        given = path.resolve().relative_to(source.resolve()).with_suffix("").as_posix()
    if given in names:
        return given
    if (source / f"{given}.md").is_file():
        raise UnknownName(f"{given!r} is a page without code; `llbook params` lists the notebooks")
    raise UnknownName(f"no notebook {given!r}; {nearest(given.replace('-', '_'), names)}")


def overview(source: Path) -> list[dict[str, Any]]:
    """A row per notebook below ``source``: name, number of parameters, whether it has a run that
    is stored, title."""
    rows = []
    for name in notebook_names(source):
        path = source / f"{name}.md"
        notebook = read_text_notebook(path, name)
        texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        lines = (line for text in texts for line in text.splitlines())
        rows.append(
            {
                "notebook": name,
                "parameters": len(parameters_cell(notebook, name)),
                "run": "experiment" in front_matter(path),
                "title": next((line[2:] for line in lines if line.startswith("# ")), name),
            }
        )
    return rows


def schema(source: Path, name: str) -> Schema:
    """Read the schema of a notebook from its text; nothing of it is executed.

    Raises:
        NotebookError: its parameters cell or front matter cannot be read.
    """
    path = source / f"{name}.md"
    notebook = read_text_notebook(path, name)
    model = _model(notebook)
    fields, dotted = model.fields(), model.parameters()
    parameters, extra = {}, {}
    for short, (default, meaning) in parameters_cell(notebook, name).items():
        field = fields.get(short)
        if field is None:
            field = FieldInfo(annotation=type(default))
            extra[short] = type(default)
        meaning = meaning or field.description or ""
        parameters[short] = Parameter(dotted.get(short, short), short, default, field, meaning)
    return Schema(name, parameters, model, extra, front_matter(path).get("experiment"))


def _model(notebook: nbformat.NotebookNode) -> type[Parameters]:
    """What the notebook hands its parameters to, imported in the same cell."""
    for cell in code_cells(notebook):
        if "from_notebook(" not in cell.source:
            continue
        nodes = list(ast.walk(ast.parse(cell.source)))
        homes = {
            alias.name: node.module
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in nodes:
            match node:
                case ast.Call(ast.Name("from_notebook"), [_, ast.Name(model), *_]):
                    return getattr(importlib.import_module(homes[model] or ""), model)
    return Parameters


def read_file(path: Path) -> list[tuple[str, Any]]:
    """Names, dotted, and values of a YAML file of parameters: nested, dotted or short names.

    Raises:
        ParameterError: it is not a mapping of names, or a name is there twice.
        OSError: it cannot be read.
    """
    content = _read_yaml(path) or {}
    if not isinstance(content, dict):
        raise ParameterError(
            f"{path}: expected a mapping of parameters, got {type(content).__name__}"
        )
    return flatten(content, str(path))


def assignment(text: str) -> tuple[str, str]:
    """Name and value of ``NAME=VALUE``.

    Raises:
        ParameterError: another form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"-p: expected NAME=VALUE, got {text!r}")
    return name, value


def read_points(path: Path) -> list[dict[str, Any]]:
    """Parameter sets of a YAML file: a list of mappings, names as :func:`read_file` has them.

    Raises:
        ParameterError: it is not such a list.
        OSError: it cannot be read.
    """
    content = _read_yaml(path)
    kind = list if not isinstance(content, list) else dict
    for one in [content] if kind is list else content:
        if not isinstance(one, kind):
            raise ParameterError(
                f"{path}: expected a list of parameter sets, each a mapping; got {type(one).__name__}"
            )
    return [dict(flatten(one, f"{path}, set {n}")) for n, one in enumerate(content, 1)]


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: {error}") from None


def flatten(content: Mapping[Any, Any], where: str) -> list[tuple[str, Any]]:
    """``{"search": {"epochs": 5}}`` as ``[("search.epochs", 5)]``.

    Raises:
        ParameterError: a name that is not text.
    """
    pairs = []
    for name, value in content.items():
        if not isinstance(name, str):
            raise ParameterError(f"{where}: a parameter's name must be text, got {name!r}")
        if isinstance(value, dict):
            pairs += [(f"{name}.{inner}", v) for inner, v in flatten(value, where)]
        else:
            pairs.append((name, value))
    return pairs


class _UniqueLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML's last of two equal names would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _read(value: Any, kind: type) -> Any:
    """Text as a value of ``kind``; what is not such a value stays as it is, to be named as it is."""
    if isinstance(value, str) and kind is not str:
        try:
            if kind is bool:
                return {"true": True, "false": False}.get(value.lower(), value)
            return kind(value)
        except ValueError:
            return value
    if kind is float and type(value) is int:
        return float(value)
    return value
