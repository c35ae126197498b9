"""The command ``llbook``: thin, over what the package offers."""

from __future__ import annotations

import sys

import click

import llbook
from llbook.experiments.runs import build_folder, repository_root

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(llbook.__version__, prog_name="llbook")
def main() -> None:
    """Towards Optimal Learning of Language Models, made reproducible."""


@main.command()
@click.option("--profile", default="laptop", show_default=True, help="smoke, laptop or paper.")
@click.option("--force", is_flag=True, help="Run every notebook, changed or not.")
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=24 * 3600,
    show_default=True,
    help="Seconds that one cell of a notebook may take.",
)
def build(profile: str, force: bool, timeout: int) -> None:
    """Run the notebooks that need it and build the site.

    Everything is written below build/ of the repository, or LLBOOK_BUILD.
    """
    from llbook.experiments.config import PROFILES, overrides

    if profile not in PROFILES:
        raise click.BadParameter(
            f"got {profile!r}; expected one of {', '.join(PROFILES)}", param_hint="--profile"
        )
    root = repository_root()
    if root is None:
        raise click.ClickException(
            "the book is built from its repository; this package was installed away from one"
        )
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
