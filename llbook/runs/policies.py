"""Searched policies as files to be deposited: γ in few bytes, its error stated, checked when read.

A policy of T steps and N examples is too large for a repository, so it is an asset of a release, and
``book/records/policies.json`` lists what was deposited, with the SHA-256 of each file. A row of γ is
held as the places of its weights, a bit each, and their levels: whole numbers, in units of a 65,535th
of the row's largest weight. A row that is read is divided by its sum. The file is that of a run
(:mod:`llbook.runs.run`): beside the weights it has configuration, provenance and a checksum.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import llbook
from llbook.runs.files import locked, replacing, write_json
from llbook.runs.folders import build_folder, records_folder
from llbook.runs.provenance import provenance
from llbook.runs.run import DamagedRun, Run, read_run, write_run

__all__ = ["Deposit", "deposited", "list_policy", "load_policy", "manifest_path", "save_policy"]

_ON_THE_SIMPLEX = 1e-3  # how far from 1 a row of float32 weights may sum


@dataclass(frozen=True)
class Deposit:
    """What the manifest says of a policy.

    Attributes:
        url: where the file lies, absolute or below the address of the repository.
        sha256: of the file.
        bytes: its size.
        error: the largest Σ_n |γ_n - γ'_n| of a row, γ' being what is read of it; rows sum to 1.
    """

    url: str
    sha256: str
    bytes: int
    error: float


def save_policy(policy: Tensor, path: str | os.PathLike[str], *, of: Run | None = None) -> Deposit:
    """Write a policy to a file: the same policy of the same run gives the same bytes.

    Args:
        policy: γ, shape (T, N), rows on the simplex.
        path: a file whose name ends in ``.npz``.
        of: the run that it was searched in, whose configuration and provenance the file takes.

    Returns:
        What it came to, as an asset of the release of this version.

    Raises:
        ValueError: no policy, or another suffix; nothing is written.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a policy's file ends in .npz, got {path}")
    weights = policy.detach().to("cpu", torch.float32).numpy()
    if weights.ndim != 2 or not weights.size:
        raise ValueError(f"a policy has shape (T, N), got {tuple(weights.shape)}")
    off = float(np.abs(weights.sum(1, dtype=np.float64) - 1).max())
    if not (weights.min() >= 0 and off <= _ON_THE_SIMPLEX):
        raise ValueError(
            "a policy's rows are on the simplex: expected weights of at least 0 that sum to 1, "
            f"got one of {weights.min():g} and a sum that is {off:g} off"
        )
    largest = weights.max(1, keepdims=True)
    levels = np.rint(weights * (np.iinfo(np.uint16).max / largest)).astype("<u2")
    arrays = {
        "shape": np.array(weights.shape),
        "places": np.packbits(levels > 0),
        "levels": levels[levels > 0],
    }
    if of is None:
        of = Run("", "", {}, {**provenance("cpu"), "seconds": 0.0}, {})
    run = Run(of.id, f"{of.kind}-policy".lstrip("-"), of.config, of.provenance, arrays)
    with replacing(path, "write the policy") as temporary:
        write_run(run, temporary, compressed=True)
    error = float(np.abs(_decoded(arrays) - weights).sum(1, dtype=np.float64).max())
    url = f"releases/download/v{llbook.__version__}/{path.name}"
    return Deposit(url, _sha256(path.read_bytes()), path.stat().st_size, float(f"{error:.2g}"))


def load_policy(source: str | os.PathLike[str]) -> Tensor:
    """Read a policy: a path, or the name of one in the manifest, which is downloaded once.

    Relative addresses are below the repository that ``LLBOOK_REPOSITORY`` names.

    Returns:
        γ, shape (T, N), float32; rows sum to 1 to rounding.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a name that is not in the manifest; no repository; a download with another
            SHA-256 than the manifest's, which is not kept.
        ConnectionError: it cannot be downloaded.
        DamagedRun: the file is truncated, altered or no policy.
    """
    path = Path(source)
    if path.suffix != ".npz":
        path = _fetched(str(source))
    run = read_run(path)
    try:
        return torch.from_numpy(_decoded(run.arrays))
    except (LookupError, ValueError, TypeError) as error:
        raise DamagedRun(f"{path}: no policy ({error})") from error


def manifest_path() -> Path:
    """Where the list of what was deposited lies."""
    return records_folder() / "policies.json"


def deposited() -> dict[str, Deposit]:
    """Name → what the manifest says of it."""
    path = manifest_path()
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: Deposit(**entry) for name, entry in listed.items()}


def list_policy(name: str, deposit: Deposit) -> None:
    """Enter a policy into the manifest."""
    with locked(build_folder() / "policies.lock", lambda: None):  # others list theirs
        listed = deposited() | {name: deposit}
        write_json(manifest_path(), {key: asdict(listed[key]) for key in sorted(listed)})


def _fetched(name: str) -> Path:
    if (wanted := (listed := deposited()).get(name)) is None:
        known = ", ".join(listed) or "none"
        raise ValueError(f"no deposited policy is called {name!r}; there are: {known}")
    path = build_folder() / "policies" / f"{name}.npz"
    if path.is_file() and _sha256(path.read_bytes()) == wanted.sha256:
        return path
    url, repository = wanted.url, os.environ.get("LLBOOK_REPOSITORY", "").rstrip("/")
    if "://" not in url:
        if not repository:
            raise ValueError(
                f"{name} lies below the repository, at {url}: set LLBOOK_REPOSITORY to its address, "
                "https://github.com/OWNER/NAME, or pass the path of the file"
            )
        url = f"{repository}/{url}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{name} was not downloaded from {url}: {error}") from error
    if (got := _sha256(content)) != wanted.sha256:
        raise ValueError(
            f"{url} has SHA-256 {got} and {len(content):,} bytes, expected {wanted.sha256} and "
            f"{wanted.bytes:,}; it is not used"
        )
    with replacing(path, "keep the policy") as temporary:
        temporary.write_bytes(content)
    return path


def _decoded(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    steps, size = map(int, arrays["shape"])
    places = np.unpackbits(arrays["places"], count=steps * size).astype(bool).reshape(steps, size)
    weights = np.zeros((steps, size), np.float32)
    weights[places] = arrays["levels"]
    return (weights / weights.sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
