"""The command ``llbook``: thin, over what the package offers."""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

import llbook
from llbook.runs.store import build_folder, repository_root

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(llbook.__version__, prog_name="llbook")
def main() -> None:
    """Towards Optimal Learning of Language Models, made reproducible."""
    # notebooks run in a folder of their own
    if text := os.environ.get("LLBOOK_TINYSTORIES"):
        os.environ["LLBOOK_TINYSTORIES"] = str(Path(text).absolute())


def _profile(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from llbook.publish.profiles import PROFILES

    if value not in PROFILES:
        raise click.BadParameter(f"got {value!r}; expected one of {', '.join(PROFILES)}")
    return value


_profile_option = click.option(
    "--profile",
    default="laptop",
    show_default=True,
    envvar="LLBOOK_PROFILE",
    show_envvar=True,
    callback=_profile,
    help="smoke, laptop or paper.",
)
_timeout_option = click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=24 * 3600,
    show_default=True,
    help="Seconds that one cell of a notebook may take.",
)
_values_option = click.option(
    "-p",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter, by its dotted or its short name: -p search.epochs=50 -p seed=3.",
)
_file_option = click.option(
    "-f",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file of parameters; -p has the last word.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@main.command()
@_profile_option
@click.option("--force", is_flag=True, help="Run every notebook, changed or not.")
@_timeout_option
def build(profile: str, force: bool, timeout: int) -> None:
    """Run the notebooks that need it and build the site.

    Everything is written below build/ of the repository, or LLBOOK_BUILD.
    """
    from llbook.publish.profiles import overrides

    root = _root()
    from llbook.publish.notebooks import NotebookError
    from llbook.publish.site import BookError
    from llbook.publish.site import build as build_book

    try:
        build_book(
            root,
            build_folder(),
            profile=profile,
            overrides=overrides,
            force=force,
            timeout=timeout,
            report=lambda line: print(line, flush=True),
        )
    except (NotebookError, BookError) as error:
        print(
            f"\nThe book was not built; the site of before, if any, is as it was.\n\n{error}",
            file=sys.stderr,
        )
        sys.exit(1)


@main.command()
def pdf() -> None:
    """Print the site that `llbook build` has made to one PDF, by a Chromium that is installed.

    It is written to llbook.pdf beside the site. LLBOOK_CHROMIUM names another Chromium than the
    first on PATH.
    """
    root = _root()
    from llbook.publish.browser import NoBrowserError
    from llbook.publish.pdf import print_book
    from llbook.publish.site import BookError

    try:
        print_book(root, build_folder(), report=lambda line: print(line, flush=True))
    except (BookError, NoBrowserError) as error:
        print(f"No PDF was made: {error}", file=sys.stderr)
        sys.exit(1)


@main.command()
@click.argument("notebook")
@_values_option
@_file_option
@_profile_option
@click.option(
    "-o",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.ipynb",
    help="Copy the executed notebook there, if it succeeds.",
)
@_timeout_option
def run(
    notebook: str,
    given: tuple[str, ...],
    file: Path | None,
    profile: str,
    output: Path | None,
    timeout: int,
) -> None:
    """Execute one notebook with other parameters.

    They are checked before anything starts (`llbook params NOTEBOOK` lists
    them). The executed notebook, its parameters and where it comes from lie
    together below build/runs/notebooks/. Exit status: 1 when a cell failed,
    2 when nothing was started.
    """
    if output is not None:
        if output.suffix != ".ipynb":
            raise click.BadParameter(
                f"got {str(output)!r}; a notebook's name ends in .ipynb", param_hint="-o"
            )
        if not output.absolute().parent.is_dir():
            raise click.BadParameter(f"there is no folder {output.parent}", param_hint="-o")
    schema, values = _parameters(notebook, profile, file, given)
    from llbook.publish import runner
    from llbook.publish.notebooks import NotebookError, Settings

    settings = Settings(_root() / "book", build_folder(), timeout=timeout)
    try:
        done = runner.run(
            schema,
            settings,
            values,
            profile=profile,
            output=output,
            progress=sys.stderr.isatty(),
        )
    except (NotebookError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except runner.Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(_INTERRUPTED)
    print(f"{schema.notebook}: done: {done}")


@main.command()
@click.argument("notebook")
@_values_option
@_file_option
@_profile_option
def search(notebook: str, given: tuple[str, ...], file: Path | None, profile: str) -> None:
    """Compute the run of a notebook, without the notebook, into the run store.

    For a search that is too large for one device, under torchrun:

    torchrun --nproc-per-node=2 -m llbook search language_model -p size=4096

    Its processes share the examples and the policy. A search that was interrupted
    goes on from its last epoch, with as many processes as there are then.
    """
    schema, values = _parameters(notebook, profile, file, given)
    from llbook.experiments.experiment import registry
    from llbook.optimal import distributed

    try:
        schema.stored_run()
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from None
    try:
        config = schema.config(values)
        distributed.start()
        experiment = next(e for e in registry().values() if e.config is schema.model)
        run = experiment.shared_run(config, progress=True)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from the last epoch.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    if run is not None:
        print(f"{schema.notebook}: run {run.id}")
    distributed.stop()


@main.command()
@click.argument("notebook")
@_json_option
def params(notebook: str, as_json: bool) -> None:
    """List the parameters of a notebook: name, type, default, range, meaning."""
    schema, _ = _parameters(notebook, "laptop", None, ())
    described = [parameter.described() for parameter in schema.parameters.values()]
    if as_json:
        _print_json(described)
        return
    columns = ("name", "type", "default", "range", "meaning")
    _table(columns, ([_text(p[column]) for column in columns] for p in described))


@main.command()
@click.argument("notebook")
@click.option(
    "-p",
    "axes",
    multiple=True,
    metavar="NAME=VALUES",
    help="A parameter and its values: -p seed=0..9 -p data.desired_size=512,4096.",
)
@click.option(
    "-f",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML list of parameter sets, each combined with all of -p.",
)
@_profile_option
@click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler: tcp://host:8786.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes, without --scheduler.  [default: one per core; one where there is a GPU]",
)
@_timeout_option
def sweep(
    notebook: str,
    axes: tuple[str, ...],
    file: Path | None,
    profile: str,
    scheduler: str | None,
    workers: int | None,
    timeout: int,
) -> None:
    """Compute the run of a notebook for many parameter sets.

    Points that are in the run store are not computed again; a failed one
    stops no other. A table of the results, and a notebook that draws mean and
    interval over it, lie below build/runs/sweeps/. Exit status: 1 when a point
    failed, 2 when nothing was started.
    """
    if scheduler is not None and workers is not None:
        raise click.UsageError("--workers is for this machine: a scheduler has its own")
    schema, base = _parameters(notebook, profile, None, ())
    from llbook.parameters import ParameterError
    from llbook.publish import sweep as sweeps
    from llbook.publish.notebooks import Settings

    try:
        schema.stored_run()
        pairs = [_assignment(text) for text in axes]
        sets = sweeps.read_points(file) if file is not None else [{}]
        points = sweeps.sweep_points(schema, pairs, sets, base)
    except (ParameterError, LookupError, OSError) as error:
        raise click.UsageError(str(error.args[0])) from None
    settings = Settings(
        _root() / "book",
        build_folder(),
        timeout=timeout,
        report=lambda line: print(line, flush=True),
    )
    try:
        done = sweeps.sweep(
            schema,
            settings,
            points,
            scheduler=scheduler,
            workers=workers,
            progress=sys.stderr.isatty(),
        )
    except (sweeps.SweepError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(
            "\nInterrupted; the points that are done are stored, and the next call skips them.",
            file=sys.stderr,
        )
        sys.exit(_INTERRUPTED)
    print(f"table: {done.table}")
    if done.notebook is not None:
        print(f"notebook: {done.notebook}")
    if done.failed:
        print("\n".join([f"{len(done.failed)} failed:", *done.failed]), file=sys.stderr)
        sys.exit(1)


@main.command()
@click.argument("patterns", nargs=-1, metavar="[NAME]...")
def records(patterns: tuple[str, ...]) -> None:
    """Compute the recorded runs that are named, and write them to book/records.

    A NAME may hold * and ?. Runs that are in the run store are only written out, and
    an interrupted search goes on. Without a NAME: lists them, and which there are.
    """
    from llbook.experiments.experiment import registry
    from llbook.runs.store import record_path

    writers = {
        name: experiment.write_records
        for experiment in registry().values()
        for name in experiment.record_names()
    }
    if not patterns:
        _table(
            ("name", "record"),
            ([name, "there" if record_path(name).exists() else "none"] for name in writers),
        )
        return
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = fnmatch.filter(writers, pattern)
        if not found:
            near = difflib.get_close_matches(pattern, writers, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(
                f"no recorded run is called {pattern!r}{hint} `llbook records` lists them"
            )
        chosen |= dict.fromkeys(found)
    _root()  # records are part of a checkout
    try:
        for name in chosen:
            writers[name]([name], progress=True)
            print(f"record: {record_path(name)}", flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from the last epoch.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@main.group(invoke_without_command=True)
@_json_option
@click.pass_context
def runs(context: click.Context, as_json: bool) -> None:
    """List what the run store holds: what, parameters that differ, size, age, machine."""
    if context.invoked_subcommand is not None:
        return
    from llbook.publish import listing

    build = build_folder()
    stored, notebooks = listing.stored(build), listing.notebooks(build)
    if as_json:
        _print_json({"runs": stored, "notebooks": notebooks})
        return
    if not stored and not notebooks:
        print(f"No runs in {build / 'runs'}.")
    columns = ("id", "state", "size", "age", "machine", "parameters")
    for title, rows in (("Run store", stored), ("Executed notebooks", notebooks)):
        if rows:
            print(f"{title}\n")
            _table(
                columns, ([_readable(column, row[column]) for column in columns] for row in rows)
            )
            print()


@runs.command()
@click.argument("id")
@_json_option
def show(id: str, as_json: bool) -> None:
    """Show a run: parameters, provenance, arrays; its checksum is compared.

    ID may be the beginning of one.
    """
    from llbook.publish import listing
    from llbook.runs.store import DamagedRun

    try:
        shown = listing.show(build_folder(), id)
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    except DamagedRun as error:
        print(f"{id} is damaged: {error}; it will be computed anew", file=sys.stderr)
        sys.exit(1)
    if as_json:
        _print_json(shown)
        return
    for title, content in sorted(shown.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(content, dict):
            print(f"\n{title}")
            _table((), ([f"  {name}", _text(value)] for name, value in content.items()))
        else:
            print(f"{title}: {_readable(title, content)}")


@runs.command()
@click.argument("notebook")
@_values_option
@_file_option
@_profile_option
def why(notebook: str, given: tuple[str, ...], file: Path | None, profile: str) -> None:
    """Say whether a run is in the store and, where it is not, what the stored ones have otherwise."""
    schema, values = _parameters(notebook, profile, file, given)
    from llbook.runs.store import NotStored, stored_only

    try:
        function = schema.stored_run()
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from None
    try:
        with stored_only():
            found = function(schema.config(values))
    except NotStored as error:
        reason = f"the stored one is damaged: {error.damage}" if error.damage else "not stored"
        print(f"{error.id}: {reason}; it would be computed")
        for id, differences in [*error.nearest.items()][:3]:
            print(f"  {id} differs in")
            for difference in differences or ["nothing: its name is another's"]:
                print(f"    {difference}")
        if not error.nearest:
            print("  there is no run of its kind in the store")
        return
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(
        f"{found.id}: stored, {_readable('age', found.age.total_seconds())} old; it would be used"
    )


@runs.command()
@click.argument("ids", nargs=-1)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Also runs and executed notebooks of before that many days.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def prune(ids: tuple[str, ...], older_than: float | None, dry_run: bool, yes: bool) -> None:
    """Remove what is of no use any more, or the runs named.

    Of no use are damaged runs, what killed processes left unfinished, and runs
    that today's code, libraries or Python would never find. A search that can
    be resumed stays, unless it is named or old.
    """
    from llbook.publish import listing

    age = None if older_than is None else timedelta(days=older_than)
    try:
        found = listing.prunable(build_folder(), ids, age)
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    if not found:
        print("Nothing to remove.")
        return
    _table(("id", "size", "why"), ((f.id, _readable("size", f.size), f.why) for f in found))
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody to ask: say --yes, or --dry-run")
        click.confirm("Remove them?", abort=True)
    left = [line for f in found if (line := f.remove())]
    size = _readable("size", sum(f.size for f in found))
    print("\n".join(left) if left else f"Removed {len(found)}, {size}.")
    sys.exit(bool(left))


def _root() -> Path:
    root = repository_root()
    if root is None:
        raise click.ClickException(
            "the book is built from its repository; this package was installed away from one"
        )
    return root


def _parameters(
    notebook: str, profile: str, file: Path | None, given: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """Schema of a notebook and the checked values, or exit status 2."""
    from llbook.parameters import ParameterError
    from llbook.publish import runner
    from llbook.publish.profiles import overrides

    source = _root() / "book"
    try:
        name = runner.notebook_name(source, notebook)
        schema = runner.schema(source, name)
        pairs = [*overrides(profile, name).items()]
        pairs += runner.read_file(file) if file is not None else []
        pairs += [_assignment(text) for text in given]
        values = schema.values(pairs)
        for file_name in {"path", "table"} & {n for n, value in values.items() if value}:
            found = Path(values[file_name]).absolute()
            if not found.is_file():
                raise ParameterError(
                    f"{schema.parameters[file_name].name}: got {values[file_name]!r}; "
                    "expected the name of a file that exists"
                )
            values[file_name] = str(found)
        return schema, values
    except (ParameterError, LookupError, OSError) as error:
        raise click.UsageError(str(error.args[0] if error.args else error)) from None


def _assignment(text: str) -> tuple[str, str]:
    from llbook.parameters import ParameterError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"-p: expected NAME=VALUE, got {text!r}")
    return name, value


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be; the last one is not padded."""
    lines = [*([header] if header else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "defaults"
    return '""' if value == "" else str(value)


def _readable(column: str, value: Any) -> str:
    if column == "size":
        return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"
    if column == "age":
        for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
            if value >= seconds:
                return f"{value / seconds:.0f} {unit}"
        return f"{value:.0f} s"
    return _text(value)
