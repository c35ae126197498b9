"""The command ``llbook``: thin, over what the package offers."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import llbook
from llbook.parameters import ParameterError
from llbook.publish import tables
from llbook.runs.folders import build_folder, repository_root

if TYPE_CHECKING:
    from llbook.publish.schema import Schema

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_MEANS = {
    "build": "The book was not built; the site of before, if any, is as it was.",
    "pdf": "No PDF was made.",
}
"""What a failed command comes to, where its error does not say it."""


class _Commands(click.Group):
    """Errors are a line on stderr and an exit status: 2 for what was asked, 1 for what failed.

    What is neither a bad value nor the machine's doing is a defect, and keeps its traceback.
    """

    def invoke(self, context: click.Context) -> Any:
        from llbook.publish.schema import UnknownName

        try:
            return super().invoke(context)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except (ParameterError, UnknownName) as error:
            raise click.UsageError(str(error)) from None
        except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
            if means := _MEANS.get(context.invoked_subcommand or ""):
                click.echo(f"{means}\n", err=True)
            click.echo(error, err=True)
            context.exit(1)
        except KeyboardInterrupt as interrupt:
            goes_on = "\nInterrupted; the same command goes on from what is stored."
            click.echo(str(interrupt) or goes_on, err=True)
            context.exit(_INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(llbook.__version__, prog_name="llbook")
def main() -> None:
    """Towards Optimal Learning of Language Models, made reproducible."""
    # notebooks run in a folder of their own
    if text := os.environ.get("LLBOOK_TINYSTORIES"):
        os.environ["LLBOOK_TINYSTORIES"] = str(Path(text).absolute())


_profile_option = click.option(
    "--profile",
    default="laptop",
    show_default=True,
    envvar="LLBOOK_PROFILE",
    show_envvar=True,
    type=click.Choice(["smoke", "laptop", "paper"]),
    help="How large everything is.",
)
_notebook_argument = click.argument("notebook")  # its name, or its path
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
    help="A parameter, dotted or short: -p search.epochs=50 -p seed=3. The last of a name counts.",
)
_file_option = functools.partial(
    click.option, "-f", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def _with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the schema of a notebook and the values to change in it, checked."""

    @_notebook_argument
    @_values_option
    @_file_option(help="A YAML file of parameters; -p has the last word.")
    @_profile_option
    @functools.wraps(command)
    def checked(
        notebook: str, given: tuple[str, ...], file: Path | None, profile: str, **options: Any
    ) -> None:
        schema, values = _parameters(notebook, profile, file, given)
        command(schema=schema, values=values, **options)

    return checked


@main.command()
@_profile_option
@click.option("--force", is_flag=True, help="Run every notebook, changed or not.")
@_timeout_option
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Notebooks that run at once; by default one with a GPU, else one a core, up to 4.",
)
def build(profile: str, force: bool, timeout: int, jobs: int | None) -> None:
    """Run the notebooks that need it and build the site.

    Everything is written below build/ of the repository, or LLBOOK_BUILD.
    """
    from llbook.publish import site
    from llbook.publish.profiles import overrides

    site.build(
        _root(),
        build_folder(),
        profile=profile,
        overrides=overrides,
        force=force,
        timeout=timeout,
        jobs=jobs,
        report=_say,
    )


@main.command()
def pdf() -> None:
    """Print the site that `llbook build` has made to one PDF, by a Chromium that is installed.

    It is written to llbook.pdf beside the site. LLBOOK_CHROMIUM names another Chromium than the
    first on PATH.
    """
    from llbook.publish.pdf import print_book

    print_book(_root(), build_folder(), report=_say)


@main.command()
@_with_parameters
@click.option(
    "-o",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.ipynb",
    help="Copy the executed notebook there, if it succeeds.",
)
@_timeout_option
def run(schema: Schema, values: dict[str, Any], output: Path | None, timeout: int) -> None:
    """Execute one notebook with other parameters.

    They are checked before anything starts (`llbook params NOTEBOOK` lists
    them). The executed notebook, its parameters and where it comes from lie
    together below build/runs/notebooks/. Exit status: 1 when a cell failed,
    2 when nothing was started.
    """
    from llbook.publish import runner
    from llbook.publish.kernel import Settings

    if output is not None:
        runner.check_output(output)
    done = runner.run(
        schema,
        Settings(_root() / "book", build_folder(), timeout=timeout),
        values,
        profile=click.get_current_context().params["profile"],
        output=output,
        progress=sys.stderr.isatty(),
    )
    print(f"{schema.notebook}: done: {done}")


@main.command()
@_with_parameters
def search(schema: Schema, values: dict[str, Any]) -> None:
    """Compute the run of a notebook, without the notebook, into the run store.

    For a search that is too large for one device, under torchrun:

    torchrun --nproc-per-node=2 -m llbook search language_model -p size=4096

    Its processes share the examples and the policy. A search that was interrupted
    goes on from its last epoch, with as many processes as there are then.
    """
    from llbook.optimal import distributed

    config, experiment = schema.config(values), schema.stored_experiment()
    run = experiment.shared_run(config, progress=True)
    if run is not None:
        print(f"{schema.notebook}: run {run.id}")
    distributed.stop()


@main.command()
@click.argument("notebook", required=False)
@_json_option
def params(notebook: str | None, as_json: bool) -> None:
    """List the parameters of a notebook: name, type, default, range, meaning.

    Without a NOTEBOOK: lists the notebooks, and which of them have a run that is stored.
    """
    from llbook.publish.schema import overview

    if notebook is None:
        columns = ["notebook", "parameters", "run", "title"]
        rows = overview(_root() / "book")
    else:
        columns = ["name", "type", "default", "range", "meaning"]
        schema, _ = _parameters(notebook, "laptop", None, ())
        rows = [parameter.described() for parameter in schema.parameters.values()]
    if as_json:
        tables.show_json(rows)
    elif rows:
        tables.show(columns, rows)
    else:
        print(f"{notebook} has no parameters.")


@main.command()
@_notebook_argument
@click.option(
    "-p",
    "axes",
    multiple=True,
    metavar="NAME=VALUES",
    help="A parameter and its values: whole numbers -p seed=0..9, or any -p rate=0.1,0.3.",
)
@_file_option(help="A YAML list of parameter sets, each combined with all of -p.")
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
    from llbook.publish import sweep as sweeps
    from llbook.publish.kernel import Settings
    from llbook.publish.schema import assignment, read_points

    schema.stored_experiment()
    sets = read_points(file) if file is not None else [{}]
    points = sweeps.sweep_points(schema, [*map(assignment, axes)], sets, base)
    done = sweeps.sweep(
        schema,
        Settings(_root() / "book", build_folder(), timeout=timeout, report=_say),
        points,
        scheduler=scheduler,
        workers=workers,
        progress=sys.stderr.isatty(),
    )
    print(f"table: {done.table}")
    if done.notebook is not None:
        print(f"notebook: {done.notebook}")
    if done.failed:
        print("\n".join([f"{len(done.failed)} failed:", *done.failed]), file=sys.stderr)
        sys.exit(1)


@main.command()
@click.argument("patterns", nargs=-1, metavar="[NAME]...")
@click.option(
    "--policies",
    type=click.Path(file_okay=False, path_type=Path),
    help="Search their policies anew instead, into this folder, for a release.",
)
def records(patterns: tuple[str, ...], policies: Path | None) -> None:
    """Compute the recorded runs that are named, and write them to book/records.

    A NAME may hold * and ?. Runs that are in the run store are only written out, and
    an interrupted search goes on. Without a NAME: lists them, and which there are.
    """
    from llbook.publish.listing import recorded
    from llbook.runs.records import record_path

    chosen = recorded(patterns)
    if not patterns:
        if policies is not None:
            raise click.UsageError("--policies: whose? name the recorded runs, '*' for all")
        states = {True: "there", False: "none"}
        rows = [{"name": n, "record": states[record_path(n).exists()]} for n in chosen]
        tables.show(("name", "record"), rows)
        return
    _root()  # records are part of a checkout
    for name, experiment in chosen.items():
        if policies is not None:
            _say(f"policy: {experiment.deposit(name, policies)}")
            continue
        experiment.write_records([name], progress=True)
        _say(f"record: {record_path(name)}")


@main.group(invoke_without_command=True)
@_json_option
@click.pass_context
def runs(context: click.Context, as_json: bool) -> None:
    """List what the run store holds: what, parameters that differ, size, age, machine."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(
                f"--json stands after {context.invoked_subcommand}, if it has it"
            )
        return
    from llbook.publish import listing

    build = build_folder()
    stored, notebooks = listing.stored(build), listing.notebooks(build)
    if as_json:
        tables.show_json({"runs": stored, "notebooks": notebooks})
        return
    if not stored and not notebooks:
        print(f"No runs in {build / 'runs'}.")
    columns = ("id", "state", "size", "age", "machine", "parameters")
    for title, rows in (("Run store", stored), ("Executed notebooks", notebooks)):
        if rows:
            print(f"{title}\n")
            tables.show(columns, rows)
            print()


@runs.command()
@click.argument("id")
@_json_option
def show(id: str, as_json: bool) -> None:
    """Show a run: parameters, provenance, arrays; its checksum is compared.

    ID may be the beginning of one.
    """
    from llbook.publish import listing

    shown = listing.show(build_folder(), id)
    if as_json:
        tables.show_json(shown)
        return
    for title, content in sorted(shown.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(content, dict):
            print(f"\n{title}")
            tables.show_pairs(content)
        else:
            print(f"{title}: {tables.readable(title, content)}")


@runs.command()
@_with_parameters
def why(schema: Schema, values: dict[str, Any]) -> None:
    """Say whether a run is in the store and, where it is not, what the stored ones have otherwise."""
    from llbook.publish import listing

    print("\n".join(listing.why(schema, values)))


@runs.command()
@click.argument("ids", nargs=-1)
@click.option(
    "--older-than",
    type=float,
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

    found = listing.prunable(build_folder(), ids, older_than)
    if not found:
        print("Nothing to remove.")
        return
    tables.show(("id", "size", "why"), map(vars, found))
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody to ask: say --yes, or --dry-run")
        click.confirm("Remove them?", abort=True)
    left = [line for f in found if (line := f.remove())]
    total = tables.readable("size", sum(f.size for f in found))
    print("\n".join(left) or f"Removed {len(found)}, {total}.")
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
) -> tuple[Schema, dict[str, Any]]:
    """Schema of a notebook and the checked values."""
    from llbook.publish import schema as schemas
    from llbook.publish.profiles import overrides

    source = _root() / "book"
    name = schemas.notebook_name(source, notebook)
    schema = schemas.schema(source, name)
    pairs = [*overrides(profile, name).items()]
    pairs += schemas.read_file(file) if file is not None else []
    pairs += map(schemas.assignment, given)
    return schema, schema.values(pairs)


def _say(line: str) -> None:
    print(line, flush=True)
