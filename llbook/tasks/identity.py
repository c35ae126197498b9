"""What makes a task the one it is, as a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["example_checksums", "facts"]


def facts(value: Any) -> Any:
    """``value`` as JSON, tensors by type, shape and checksum.

    Raises:
        TypeError: something that is none of tensors, plain values, collections of them
            and objects made of them.
    """
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), hashlib.sha256(_bytes(value)).hexdigest()]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): facts(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [facts(inner) for inner in value]
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    if hasattr(value, "__dict__") and not callable(value):
        return [type(value).__qualname__, facts(vars(value))]
    raise TypeError(f"cannot say what a {type(value).__name__} is made of")


def example_checksums(examples: Any) -> list[bytes]:
    """One checksum per example, from the rows of the tensors that a set is made of."""
    if isinstance(examples, Tensor):
        tensors = [examples]
    else:
        parts = examples if isinstance(examples, tuple | list) else vars(examples).values()
        tensors = [part for part in parts if isinstance(part, Tensor)]
    count = len(examples)
    if not tensors or any(t.ndim == 0 or len(t) != count for t in tensors):
        raise TypeError(
            f"cannot tell the examples of a {type(examples).__name__} apart: "
            f"expected tensors with a row for each of {count}"
        )
    return [hashlib.sha256(b"".join(_bytes(t[n]) for t in tensors)).digest() for n in range(count)]


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
