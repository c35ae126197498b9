"""A run, and the one file that holds it: an ``.npz`` with its arrays and ``run.json``.

``run.json`` has the run's id, kind, configuration and provenance, and a SHA-256 over these and over
name, type, shape and bytes of each array. NumPy reads the arrays of such a file, as of any ``.npz``.
The oldest records have no checksum and are read without.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llbook.runs.key import canonical, changes

__all__ = [
    "RUN_LOG",
    "DamagedRun",
    "Run",
    "check_arrays",
    "log_use",
    "provenance_line",
    "read_head",
    "read_run",
    "write_run",
]

RUN_LOG = "LLBOOK_RUN_LOG"
"""The variable that names the file in which a build of the book hears of the runs it used."""

_HEAD = frozenset({"id", "kind", "config", "provenance", "sha256"})
_ARRAY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
# what zipfile, zlib, json and NumPy make of flipped bytes
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, LookupError, ValueError, TypeError, AttributeError),
    *(NotImplementedError, RuntimeError, EOFError, OSError),
)


class DamagedRun(ValueError):
    """A stored run or record that is truncated, altered or not one at all."""


@dataclass(frozen=True)
class Run:
    """What one experiment computed.

    Attributes:
        id: ``<kind>-<first 12 hexadecimal digits of the key>``.
        kind: the experiment, for example ``"perceptron"``.
        config: its configuration, as JSON holds it.
        provenance: as :func:`llbook.runs.provenance.provenance` has it, ``seconds`` of wall
            time, and the key and its parts.
        arrays: name → array.
        recorded: whether it is a record kept with the book.
    """

    id: str
    kind: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    recorded: bool = False

    @property
    def age(self) -> timedelta:
        """Time since it was computed."""
        return datetime.now(UTC) - datetime.fromisoformat(self.provenance["date"])


def check_arrays(arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """What can be stored, as arrays.

    Raises:
        TypeError: no mapping, or a type that needs pickle.
        ValueError: an ill-formed name.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"results must map names to arrays, got {type(arrays).__name__}")
    checked = {}
    for name, value in arrays.items():
        if not isinstance(name, str) or not _ARRAY.match(name):
            raise ValueError(f"an array's name is letters, digits, '.', '-' and '_', got {name!r}")
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r}: dtype {array.dtype} cannot be stored without pickle")
        checked[name] = array
    return checked


def write_run(run: Run, path: Path, *, compressed: bool = False) -> None:
    """Write the file of a run: the same run gives the same bytes.

    Raises:
        TypeError, ValueError: of :func:`check_arrays`.
        OSError: it cannot be written.
    """
    arrays = check_arrays(run.arrays)
    compression = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    head = {"id": run.id, "kind": run.kind, "config": run.config, "provenance": run.provenance}
    head["sha256"] = _checksum(head, arrays)
    text = json.dumps(head, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(arrays):
            member = _member(f"{name}.npy", compression)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, arrays[name], allow_pickle=False)
        archive.writestr(_member("run.json", compression), f"{text}\n")


def read_run(path: Path, *, recorded: bool = False) -> Run:
    """Read the file of a run and compare its checksum.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        DamagedRun: it is truncated, altered or no run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            head = json.loads(archive.read("run.json"))
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        if unknown := head.keys() - _HEAD:
            raise ValueError(f"run.json has {', '.join(sorted(unknown))} unexpectedly")
        if "sha256" in head and head["sha256"] != _checksum(head, arrays):
            raise ValueError("the content does not have the stored checksum")
        float(head["provenance"]["seconds"])
        return Run(head["id"], head["kind"], head["config"], head["provenance"], arrays, recorded)
    except (FileNotFoundError, PermissionError):
        raise
    except LookupError as error:
        raise DamagedRun(f"it lacks {error}") from error
    except _DAMAGE as error:
        raise DamagedRun(str(error)) from error


def read_head(path: Path) -> dict[str, Any]:
    """``run.json`` of a run's file, without comparing anything.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedRun: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read("run.json")))
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise DamagedRun(str(error)) from error


def _checksum(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(canonical({k: v for k, v in head.items() if k != "sha256"}))
    for name, array in sorted(arrays.items()):
        digest.update(canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    # a fixed date: equal content gives equal bytes
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = compression
    info.external_attr = 0o644 << 16
    return info


def log_use(run: Run, state: str, why: str = "") -> None:
    """Tell the build of the book, if this is part of one, that a run was used."""
    if path := os.environ.get(RUN_LOG):
        seconds = round(float(run.provenance["seconds"]), 3)
        entry = {"id": run.id, "state": state, "why": why, "seconds": seconds}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def provenance_line(run: Run, notebook: str, defaults: Mapping[str, Any]) -> str:
    """One line of small print for under a figure.

    Args:
        run: what the figure shows.
        notebook: name of the notebook that draws it.
        defaults: configuration to compare with, nested as ``run.config`` is;
            only parameters that differ are named.

    Returns:
        For example ``"perceptron · seed = 3 · run perceptron-0123456789ab · live run,
        2 cores, 2026-01-31, commit 0123456"``. A recorded run says so. The
        line names the day of the computation rather than whether it came out
        of the store, so that it stays true when the outputs are reused.
    """
    changed = changes(run.config, defaults)
    origin = [
        "recorded run" if run.recorded else "live run",
        str(run.provenance["device"]),
        str(run.provenance["date"])[:10],
    ]
    if commit := run.provenance.get("commit"):
        origin.append(f"commit {commit[:7]}" + " with changes" * bool(run.provenance["dirty"]))
    parts = [notebook, ", ".join(changed) or "default parameters", f"run {run.id}"]
    return " · ".join([*parts, ", ".join(origin)])
