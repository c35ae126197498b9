"""Records: runs too costly to repeat in a build, kept with the book as ``book/records/NAME.npz``."""

from __future__ import annotations

import os
from pathlib import Path

from llbook.runs.files import replacing
from llbook.runs.folders import records_folder
from llbook.runs.run import DamagedRun, Run, log_use, read_run, write_run

__all__ = ["RECORD_LIMIT", "load_record", "record_path", "save_record"]

RECORD_LIMIT = 4_000_000
"""Largest record, in bytes."""


def record_path(name: str) -> Path:
    """Where the record of this name lies."""
    return records_folder() / f"{name}.npz"


def save_record(run: Run, path: str | os.PathLike[str]) -> Path:
    """Write a run as one record: the same run gives the same bytes.

    Args:
        run: what to keep. Its arrays may be fewer than were computed.
        path: a file whose name ends in ``.npz``.

    Raises:
        ValueError: another suffix, or more than :data:`RECORD_LIMIT` bytes; nothing is written.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a record's name ends in .npz, got {path}")
    with replacing(path, "write the record") as temporary:
        write_run(run, temporary, compressed=True)
        size = temporary.stat().st_size
        if size > RECORD_LIMIT:
            largest = max(run.arrays, key=lambda name: run.arrays[name].nbytes)
            raise ValueError(
                f"{path}: a record may have {RECORD_LIMIT:,} bytes, this one has {size:,}; its largest "
                f"array is {largest!r}, {run.arrays[largest].nbytes:,} bytes uncompressed"
            )
    return path


def load_record(path: str | os.PathLike[str]) -> Run:
    """Read a record: a path, or the bare name of one in the folder of records.

    Raises:
        FileNotFoundError: no such record.
        DamagedRun: the file is truncated, altered or not a record.
    """
    path = Path(path)
    if path.suffix != ".npz" and path.parent == Path():
        path = record_path(path.name)
    if not path.is_file():
        raise FileNotFoundError(f"no record {path}")
    try:
        run = read_run(path, recorded=True)
    except (DamagedRun, OSError) as error:
        raise DamagedRun(f"{path}: not a complete record ({error})") from error
    log_use(run, "recorded", path.name)
    return run
