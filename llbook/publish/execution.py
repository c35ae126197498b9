"""What was executed for a site, as the page "Execution" says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MARK", "execution_text"]

MARK = "% execution"
"""The line of a page that is replaced by :func:`execution_text`."""


def execution_text(facts: Mapping[str, Any], records: str = "records") -> str:
    """MyST text: the build and its machine, each notebook, the recorded runs, the libraries.

    Args:
        facts: what the build writes into ``execution.json``.
        records: name of the folder of the recorded runs, as readers know it.
    """
    notebooks: Mapping[str, Any] = facts["notebooks"]
    reused = sum(bool(notebook["reused"]) for notebook in notebooks.values())
    text = [
        f"Built at the profile `{facts['profile']}` by llbook {facts['llbook']}, "
        f"Python {facts['python']}, on {facts['device']} ({facts['platform']}). "
        f"Of {len(notebooks)} notebooks, {len(notebooks) - reused} ran in this build; "
        f"{reused} had not changed since an earlier one and kept their outputs.",
        "## Notebooks",
        _table(
            ["notebook", "parameters set by the profile", "in this build", "time", "runs it used"],
            [_row(name, notebook) for name, notebook in notebooks.items()],
        ),
    ]
    recorded = {
        run["why"]: run
        for notebook in notebooks.values()
        for run in notebook["runs"]
        if run["state"] == "recorded"
    }
    if recorded:
        hours = sum(run["seconds"] for run in recorded.values()) / 3600
        text += [
            "## Recorded runs",
            f"Read from `{records}`: {len(recorded)}, with {hours:.1f} hours of computing in all. "
            "Each file names the commit, the machine and the versions it was made with.",
            _table(
                ["file", "run", "time it took"],
                [
                    [
                        f'<span id="record-{run["id"]}"></span>`{name}`',
                        f"`{run['id']}`",
                        _time(run["seconds"]),
                    ]
                    for name, run in sorted(recorded.items())
                ],
            ),
        ]
    text += [
        "## Libraries",
        _table(["library", "version"], [[name, v] for name, v in facts["versions"].items()]),
    ]
    return "\n\n".join(text)


def _row(name: str, notebook: Mapping[str, Any]) -> list[str]:
    parameters = ", ".join(f"`{key} = {value}`" for key, value in notebook["parameters"].items())
    own = [run for run in notebook["runs"] if run["state"] != "recorded"]
    runs = [f"`{run['id']}` ({_state(run)})" for run in own]
    if recorded := len(notebook["runs"]) - len(own):
        runs.append(f"{recorded} recorded")
    return [
        f"{{doc}}`/{name}`",
        parameters or "none",
        "reused" if notebook["reused"] else "ran",
        _time(notebook["seconds"]),
        ", ".join(runs) or "none",
    ]


def _state(run: Mapping[str, Any]) -> str:
    if run["state"] == "computed":
        return f"computed in {_time(run['seconds'])}"
    return "found in the store" if run["state"] == "stored" else str(run["state"])


def _time(seconds: float) -> str:
    return (
        f"{seconds:.1f}\N{NO-BREAK SPACE}s"
        if seconds < 60
        else f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
