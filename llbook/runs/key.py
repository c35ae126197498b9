"""What identifies a run: everything that decides its results, and how two of them differ."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from llbook.runs.provenance import LIBRARIES, device_kind, versions

__all__ = [
    "canonical",
    "changes",
    "digest",
    "explain",
    "flat",
    "key_parts",
    "outdated",
    "plain",
    "source_hashes",
]

_KIND = re.compile(r"[a-z][a-z0-9_-]*\Z")


def key_parts(
    kind: str, config: Mapping[str, Any], code: Sequence[str], libraries: Sequence[str] = ()
) -> dict[str, Any]:
    """The parts of a run's key: kind, configuration, source, versions, Python, kind of device.

    Args:
        kind: name of the experiment: lower-case letters, digits, ``-`` and ``_``.
        config: see :func:`plain`; its ``device``, if any, enters as the kind that it comes to.
        code: modules and packages, see :func:`source_hashes`.
        libraries: distributions that decide the results, beside those that decide all.

    Raises:
        ValueError: an ill-formed kind.
        ModuleNotFoundError: a module that does not exist.
    """
    if not _KIND.match(kind):
        raise ValueError(f"kind must be lower-case letters, digits, '-' and '_', got {kind!r}")
    return {
        "kind": kind,
        "config": {key: value for key, value in config.items() if key != "device"},
        "code": source_hashes(code),
        "versions": versions((*LIBRARIES, *libraries)),
        "python": _python(),
        "device": device_kind(config.get("device", "auto")),
    }


def digest(parts: Mapping[str, Any]) -> str:
    """The key itself: SHA-256 over its parts."""
    return hashlib.sha256(canonical(parts)).hexdigest()


def outdated(parts: Mapping[str, Any]) -> list[str]:
    """Why this machine, as it is now, would never ask for this key; empty when it might.

    Phrases of :func:`explain` on code, library versions and Python. A file that is
    new in a package is not noticed.
    """
    known = {part: parts[part] for part in ("code", "versions", "python") if part in parts}
    now: dict[str, Any] = {
        "code": {},
        "versions": versions(known.get("versions", {})),
        "python": _python(),
    }
    for file in known.get("code", {}):
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        try:
            now["code"][file] = source_hashes([module])[file]
        except (LookupError, ModuleNotFoundError):
            continue
    return explain(known, {part: now[part] for part in known})


def source_hashes(modules: Sequence[str]) -> dict[str, str]:
    """Source file → SHA-256 of what it says, for modules and packages (with all that they contain).

    Comments, docstrings and layout do not count. Nothing is imported. Files are named from
    their top-level package on, with forward slashes, so that the result is the same wherever
    it is installed.

    Raises:
        ModuleNotFoundError: a name that does not exist.
    """
    hashes: dict[str, str] = {}
    for module in modules:
        top, *rest = module.split(".")
        spec = importlib.util.find_spec(top)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no source of {module!r}: {top!r} was not found", name=top)
        if not spec.submodule_search_locations:
            base, files = Path(spec.origin).parent, [Path(spec.origin)] if not rest else []
        else:
            base = Path(spec.origin).parent.parent
            path = Path(spec.origin).parent.joinpath(*rest)
            file = path.with_name(f"{path.name}.py")
            files = sorted(path.rglob("*.py")) if path.is_dir() else [file] * file.is_file()
        if not files:
            raise ModuleNotFoundError(f"no source of {module!r} was found", name=module)
        for source in files:
            hashes[source.relative_to(base).as_posix()] = _meaning(source.read_bytes())
    return dict(sorted(hashes.items()))


class _WithoutProse(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        prose = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if prose else node


@lru_cache(maxsize=1024)
def _meaning(source: bytes) -> str:
    try:
        tree = _WithoutProse().visit(ast.parse(source))
        source = ast.unparse(tree).encode()  # changes less between Pythons than ast.dump
    except (SyntaxError, ValueError):
        pass  # it says nothing, and cannot have computed anything
    return hashlib.sha256(source).hexdigest()


def explain(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The parts in which two keys differ, one phrase each: ``"config: seed 0 → 3"``.

    Parts named ``code`` or ``files`` map files to hashes: for them the file alone is named.
    """
    phrases = []
    for part in sorted(stored.keys() | wanted.keys()):
        before, after = (flat(mapping.get(part)) for mapping in (stored, wanted))
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name), after.get(name)
            if old == new:
                continue
            if _is_hash(old) or _is_hash(new):
                what = "changed" if old and new else "new" if new else "gone"
                phrases.append(f"{part} {what}: {name}" if name else f"{part} {what}")
                continue
            change = f"{'none' if old is None else old} → {'none' if new is None else new}"
            label = f"{part}: {name}" if part not in ("versions", "") else name
            phrases.append(f"{label or part} {change}" if name else f"{part} {change}")
    return phrases


def changes(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The parameters of ``config`` that differ from ``defaults``: ``["seed = 3"]``."""
    usual = flat(plain(defaults, "defaults"))
    return [
        f"{name.rpartition('.')[2]} = {f'{value:g}' if isinstance(value, float) else value}"
        for name, value in flat(config).items()
        if value != usual.get(name)
    ]


def plain(value: Any, path: str) -> Any:
    """``value`` as JSON would give it back; ``path`` is its name in messages.

    Raises:
        TypeError: it has something that JSON has not.
        ValueError: a number in it is not finite.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path}: keys must be strings, got {key!r}")
        return {key: plain(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if not np.isfinite(value):
            raise ValueError(f"{path}: expected a finite number, got {value!r}")
        return value
    raise TypeError(
        f"{path}: expected JSON types (None, bool, int, float, str, list, dict), "
        f"got {value!r} of type {type(value).__name__}"
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name → value of nested mappings; of anything else, ``prefix`` → itself."""
    if not isinstance(value, Mapping):
        return {} if value is None and not prefix else {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def canonical(value: Any) -> bytes:
    """JSON, the same bytes for the same value."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _python() -> str:
    return "{}.{}".format(*sys.version_info)
