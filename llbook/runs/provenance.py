"""Where a result comes from: commit, machine, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import llbook
from llbook.runs.folders import repository_root

__all__ = [
    "LIBRARIES",
    "commit",
    "cores",
    "device_kind",
    "device_name",
    "now",
    "provenance",
    "versions",
]

LIBRARIES = ("torch", "numpy", "numba")
"""Libraries that decide every run."""


def provenance(device: str = "auto", libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """Where what this process computes comes from.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``: what it computes on.
        libraries: distributions whose versions matter.

    Returns:
        ``date`` (UTC, ISO 8601), ``device`` and ``device_kind``, ``commit`` and ``dirty`` (None
        where unknown), ``versions``, ``python``, ``platform``, ``llbook``.
    """
    kind = device_kind(device)
    return {
        "date": now(),
        "device": device_name(kind),
        "device_kind": kind,
        **commit(),
        "versions": versions(libraries),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "llbook": llbook.__version__,
    }


def now() -> str:
    """The time, as provenances have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> dict[str, Any]:
    """The repository's commit and whether tracked files differ from it; None outside of git.

    Records are no source of a run, and change while several are written one after another.
    """
    root = repository_root()
    unknown = {"commit": None, "dirty": None}
    if root is None or not (root / ".git").exists():
        return unknown
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "-uno", "--", ".", ":(exclude)book/records"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"commit": commit, "dirty": bool(status)}


def device_kind(device: str = "auto") -> str:
    """``"cuda"`` or ``"cpu"``: what ``device`` comes to on this machine."""
    if device != "auto":
        return device
    if importlib.metadata.version("torch").endswith("+cpu"):
        return "cpu"  # without the second and a half that the import takes
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(kind: str) -> str:
    """What the device calls itself, for example the CPU's model and its number of cores."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA device"
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            name = found[1]
    except OSError:
        pass
    return f"{name.strip()}, {cores()} cores"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Distribution → installed version; ``"none"`` for those not installed."""
    found = {}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "none"
    return found
