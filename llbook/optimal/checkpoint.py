"""A search on disk between two epochs: the policy, compressed if so wished, and its history.

A policy of the paper's scale has 65 million weights. Stored in 16 or 8 bits, a
row is its smallest and its largest positive weight and, for each example, zero
or one of the 2^b - 1 equal steps from the one to the other:

    γ_n = 0  or  low + (code - 1) / (2^b - 2) · (high - low),  divided by their sum.

The error of a weight is at most (high - low) / (2 (2^b - 2)), before the division
by the sum; it is measured against the spread of a row, so that rows which are
nearly uniform keep what distinguishes their examples. A search that stores its
policy in such a form also goes on from the rounded one, interrupted or not:
that makes a resumed search the same, bit by bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llbook.runs.files import replacing

__all__ = [
    "FORMS",
    "DamagedCheckpoint",
    "decode_policy",
    "digest",
    "encode_policy",
    "load_checkpoint",
    "save_checkpoint",
]

FORMS = ("float32", "uint16", "uint8")
_LEVELS = {"uint16": 2**16 - 2, "uint8": 2**8 - 2}
_DTYPES = {"uint16": torch.uint16, "uint8": torch.uint8}
_ROWS = 256  # rows at a time: a policy can be most of the memory there is


class DamagedCheckpoint(ValueError):
    """A checkpoint that is truncated or altered, or none at all."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def encode_policy(policy: Tensor, form: str) -> dict[str, Tensor]:
    """γ as it is stored: ``policy``, or ``codes`` (T, N), ``low`` and ``high`` (T,).

    Args:
        policy: γ, shape (T, N).
        form: ``"float32"`` keeps the policy's own dtype, exactly; ``"uint16"`` and
            ``"uint8"`` round as described above.

    Raises:
        ValueError: an unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"the form of a stored policy must be one of {FORMS}, got {form!r}")
    if form == "float32":
        return {"policy": policy.cpu()}
    levels = _LEVELS[form]
    codes = torch.empty(policy.shape, dtype=_DTYPES[form])
    low, high = policy.new_empty(len(policy)), policy.amax(1)
    for rows, part, lowest, top in zip(
        codes.split(_ROWS), policy.split(_ROWS), low.split(_ROWS), high.split(_ROWS), strict=True
    ):
        lowest.copy_(torch.where(part > 0, part, torch.inf).amin(1))
        span = (top - lowest)[:, None]
        # a row of one value is all at its smallest
        step = torch.where(span > 0, (part - lowest[:, None]) / span, 0)
        code = step.mul_(levels).round_().add_(1)
        rows.copy_(torch.where(part > 0, code, 0).to(torch.int32).to(_DTYPES[form]))
    return {"codes": codes, "low": low.cpu(), "high": high.cpu()}


def decode_policy(stored: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The policy that :func:`encode_policy` stored, on the device of ``like``, in its dtype."""
    if "policy" in stored:
        return stored["policy"].to(like)
    codes = stored["codes"]
    levels = next(_LEVELS[form] for form in _DTYPES if _DTYPES[form] == codes.dtype)
    low, high = stored["low"].to(like), stored["high"].to(like)
    policy = like.new_empty(codes.shape)
    for rows, part, lowest, top in zip(
        codes.split(_ROWS), policy.split(_ROWS), low.split(_ROWS), high.split(_ROWS), strict=True
    ):
        code = rows.to(torch.int32).to(like)
        lowest, top = lowest[:, None], top[:, None]
        part.copy_(lowest + (code - 1).clamp_(min=0) * ((top - lowest) / levels))
        part.mul_(code > 0)
        part.div_(part.sum(1, keepdim=True))
    return policy


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts, whole or not at all: a file of before stays until then.

    Raises:
        OSError: it cannot be written; the path is in the message.
    """
    data = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {"facts": json.dumps(facts), "sha256": digest(data)}
    with replacing(path, "write the checkpoint", durable=True) as temporary:
        try:
            save_file(data, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of :func:`save_checkpoint`.

    Raises:
        DamagedCheckpoint: the file is not such a checkpoint, or was truncated or altered.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            facts = json.loads(metadata["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if digest(tensors) != metadata["sha256"]:
                raise ValueError("it does not have its checksum")
            return tensors, facts
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of a search: {error}") from error
