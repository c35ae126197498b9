"""One notebook with other parameters: its schema, and what ``llbook run`` does.

The schema of a notebook is read from its text: the ``parameters`` cell has the
names, types, defaults and meanings; the model that the notebook itself hands
them to, ``from_notebook(globals(), MODEL, …)``, has the dotted names and the
ranges. So they cannot disagree with what the notebook will check.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import io
import itertools
import json
import shutil
import time
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic.fields import FieldInfo

from llbook.parameters import ParameterError, Parameters, from_notebook, limits
from llbook.publish.notebooks import (
    LIBRARIES,
    NotebookError,
    Settings,
    execute_once,
    is_notebook,
    read_text_notebook,
)
from llbook.publish.profiles import overrides
from llbook.runs.files import in_use, replacing, unwritable, write_json
from llbook.runs.provenance import provenance

__all__ = [
    "Interrupted",
    "Parameter",
    "Schema",
    "executed_notebooks",
    "notebook_name",
    "notebook_names",
    "read_file",
    "run",
    "schema",
]

_TYPES = {"bool": bool, "float": float, "int": int, "str": str}


class Interrupted(RuntimeError):
    """Ctrl-C; the message says what was kept."""


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
        words = {
            "ge": "minimum",
            "gt": "exclusiveMinimum",
            "le": "maximum",
            "lt": "exclusiveMaximum",
            "multiple_of": "multipleOf",
        }
        bounds = {
            word: getattr(bound, name)
            for bound in self.field.metadata
            for name, word in words.items()
            if hasattr(bound, name)
        }
        if choices := getattr(self.field.annotation, "__args__", ()):
            bounds["enum"] = list(choices)
        return {
            "name": self.name,
            "short": self.short,
            "type": self.type,
            "default": self.default,
            "range": limits(self.field)
            or ("true, false" if self.field.annotation is bool else "any"),
            **bounds,
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
        stored: module and function that give the notebook's stored run, called with the
            configuration; None when it makes none.
    """

    notebook: str
    parameters: dict[str, Parameter]
    model: type[Parameters]
    extra: dict[str, type]
    stored: tuple[str, str] | None

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
        known = [*dotted, *self.parameters]
        near = [self.parameters[last].name] if last in self.parameters else []
        near = near or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(dotted)}"
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
        return values

    def config(self, values: Mapping[str, Any]) -> Parameters:
        """The configuration that the notebook makes of its defaults with ``values`` changed.

        Raises:
            ParameterError: a wrong type, a value out of range.
        """
        defaults = {short: p.default for short, p in self.parameters.items()}
        return from_notebook(defaults | dict(values), self.model, **self.extra)[0]

    def stored_run(self) -> Callable[..., Any]:
        """The function of :attr:`stored`.

        Raises:
            LookupError: the notebook makes no stored run.
        """
        if self.stored is None:
            raise LookupError(
                f"{self.notebook} computes what it shows in the page and stores no run"
            )
        module, function = self.stored
        return getattr(importlib.import_module(module), function)


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
        LookupError: there is none such; the nearest is named.
    """
    names = notebook_names(source)
    path = Path(given)
    if path.suffix == ".md" and path.resolve().is_relative_to(source.resolve()):
        given = path.resolve().relative_to(source.resolve()).with_suffix("").as_posix()
    if given in names:
        return given
    near = difflib.get_close_matches(given.replace("-", "_"), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"notebooks: {', '.join(names)}"
    raise LookupError(f"no notebook {given!r}; {hint}")


def schema(source: Path, name: str) -> Schema:
    """Read the schema of a notebook from its text; nothing of it is executed.

    Raises:
        NotebookError: its parameters cell cannot be read.
    """
    notebook = read_text_notebook(source / f"{name}.md", name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    model, extra, stored = _uses(cell.source for cell in code)
    fields, dotted = model.fields(), model.parameters()
    parameters = {}
    for short, default, meaning in _parameters_cell(name, cells[0].source) if cells else ():
        field = fields.get(short) or FieldInfo(annotation=extra.get(short, type(default)))
        parameters[short] = Parameter(
            dotted.get(short, short), short, default, field, meaning or field.description or ""
        )
    extra = {short: type(p.default) for short, p in parameters.items() if short not in fields}
    return Schema(name, parameters, model, extra, stored)


def read_file(path: Path) -> list[tuple[str, Any]]:
    """Names, dotted, and values of a YAML file of parameters: nested, dotted or short names.

    Raises:
        ParameterError: it is not a mapping of names, or a name is there twice.
        OSError: it cannot be read.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: {error}") from None
    if not isinstance(content or {}, dict):
        raise ParameterError(
            f"{path}: expected a mapping of parameters, got {type(content).__name__}"
        )
    return flatten(content or {}, str(path))


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


def run(
    schema: Schema,
    settings: Settings,
    values: Mapping[str, Any],
    *,
    profile: str = "laptop",
    output: Path | None = None,
    progress: bool = False,
) -> Path:
    """Execute a notebook; it, its parameters and its provenance lie together in a folder.

    The folder is ``runs/notebooks/<name>-<time>/`` of the build, with
    ``<name>.ipynb``, ``parameters.yaml`` (all of them, so that it gives the same
    run again) and ``run.json``. It is there when the notebook ended, or failed.

    Args:
        schema: the notebook's.
        settings: folders, time limit.
        values: short name → value, of :meth:`Schema.values`.
        profile: what to change in the defaults before.
        output: the executed notebook is copied there, if it succeeds.
        progress: show on stderr which cell runs.

    Returns:
        The executed notebook.

    Raises:
        NotebookError: it failed; the message says where the part that ran lies.
        Interrupted: likewise.
        OSError: something cannot be written; the path is in the message.
    """
    start = time.perf_counter()
    file = f"{Path(schema.notebook).name}.ipynb"
    changed = overrides(profile, schema.notebook) | dict(values)
    parameters = {short: p.default for short, p in schema.parameters.items()} | changed
    facts: dict[str, Any] = {
        "notebook": schema.notebook,
        "profile": profile,
        "changed": {schema.parameters[short].name: value for short, value in changed.items()},
        "parameters": {schema.parameters[short].name: v for short, v in parameters.items()},
        **provenance(parameters.get("device", "auto"), LIBRARIES),
    }
    began = datetime.fromisoformat(facts["date"])
    folder, unfinished = _new_folders(settings.build / "runs" / "notebooks", schema.notebook, began)

    def keep(state: str, runs: Sequence[Mapping[str, Any]] = ()) -> None:
        facts.update(state=state, seconds=round(time.perf_counter() - start, 3), runs=list(runs))
        (unfinished / "parameters.yaml").write_text(
            yaml.safe_dump(facts["parameters"], sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
        write_json(unfinished / "run.json", facts)
        unfinished.rename(folder)

    try:
        try:
            with in_use(unfinished):
                notebook, runs = execute_once(
                    schema.notebook, settings, changed, partial=unfinished / file, progress=progress
                )
        except NotebookError as error:
            _mark(unfinished / file, "failed", str(error).partition("\n")[0])
            keep("failed")
            raise NotebookError(f"{error}\n\n{_kept(folder, file)}") from None
        except KeyboardInterrupt:
            _mark(unfinished / file, "interrupted", f"{schema.notebook}: interrupted")
            keep("interrupted")
            raise Interrupted(
                f"{schema.notebook}: interrupted; {_kept(folder, file)}\n"
                "A search that can be resumed goes on from its last epoch in the next run."
            ) from None
        notebook.metadata["llbook"] = {"state": "done", "parameters": facts["parameters"]}
        nbformat.write(notebook, unfinished / file)
        keep("done", runs)
    except OSError as error:
        raise unwritable(error, error.filename or unfinished, "write") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if output is None:
        return folder / file
    with replacing(output) as temporary:
        shutil.copyfile(folder / file, temporary)
    return output


def executed_notebooks(build: Path) -> dict[Path, dict[str, Any]]:
    """Folder → facts of what :func:`run` left below the build folder, the newest first."""
    found = {}
    for file in (build / "runs" / "notebooks").glob("*/run.json"):
        try:
            facts = json.loads(file.read_bytes())
            facts["date"], facts["state"], facts["changed"].items()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        found[file.parent] = facts
    return dict(sorted(found.items(), key=lambda item: item[1]["date"], reverse=True))


class UniqueLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
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


def _uses(
    sources: Iterable[str],
) -> tuple[type[Parameters], dict[str, type], tuple[str, str] | None]:
    """Model, extra parameters and stored run, from the calls in a notebook's code."""
    imported: dict[str, str] = {}
    model: type[Parameters] = Parameters
    extra: dict[str, type] = {}
    stored: tuple[str, str] | None = None
    for source in sources:
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except SyntaxError:  # a cell with IPython's own commands
            continue
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {alias.asname or alias.name: node.module for alias in node.names}
        for node in nodes:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            called = node.func.id
            if called == "from_notebook" and isinstance(node.args[1], ast.Name):
                name = node.args[1].id
                model = getattr(importlib.import_module(imported[name]), name)
                extra = {
                    k.arg: _TYPES[k.value.id]
                    for k in node.keywords
                    if k.arg and isinstance(k.value, ast.Name)
                }
            elif (
                called.endswith("_run")
                and imported.get(called, "").startswith("llbook.experiments.")
                and isinstance(node.args[0], ast.Name)
                and node.args[0].id == "config"
            ):
                stored = (imported[called], called)
    return model, extra, stored


def _parameters_cell(name: str, source: str) -> list[tuple[str, Any, str]]:
    """Name, default and comment of each line ``name: type = default  # comment``."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = []
    for node in ast.parse(source).body:
        try:
            match node:
                case ast.AnnAssign(ast.Name(target), ast.Name(annotation), ast.expr() as value):
                    default = _TYPES[annotation](ast.literal_eval(value))
                case _:
                    raise ValueError("no annotated name with a value")
            found.append((target, default, comments.get(node.lineno, "")))
        except (AttributeError, LookupError, ValueError):
            raise NotebookError(
                f"{name}: expected 'name: type = default  # meaning' in its parameters cell, "
                f"got {ast.unparse(node)!r}"
            ) from None
    return found


def _new_folders(parent: Path, notebook: str, date: datetime) -> tuple[Path, Path]:
    """A name that no folder has, and the folder to fill first, whose being there reserves the name."""
    stem = f"{notebook.replace('/', '-')}-{date:%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        unfinished = folder.with_name(f".{folder.name}.partial")
        try:
            unfinished.mkdir(parents=True)
        except FileExistsError:
            continue  # of a process that began in the same second
        except OSError as error:
            raise unwritable(error, parent, "make the folder") from None
        if not folder.exists():
            return folder, unfinished
        unfinished.rmdir()
    raise AssertionError("unreachable")


def _mark(path: Path, state: str, why: str) -> None:
    """Say in the notebook itself that it did not come to its end."""
    if not path.exists():
        return
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["llbook"] = {"state": state, "why": why}
    note = nbformat.v4.new_markdown_cell(f"**This notebook did not come to its end.** {why}")
    notebook.cells.insert(0, note)
    nbformat.write(notebook, path)


def _kept(folder: Path, file: str) -> str:
    what = folder / file
    return f"what ran of it is in {what}" if what.exists() else f"its parameters are in {folder}"
