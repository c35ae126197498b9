"""The stream: a prefix that finds any damage, a header that says how to replay, the coder's words."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CorruptStreamError", "digest", "pack", "read_header", "unpack"]

MAGIC = b"LLBC"
VERSION = 1
_PREFIX = struct.Struct("<4sHII16s")  # magic, version, header bytes, payload bytes, checksum


class CorruptStreamError(ValueError):
    """A stream that is damaged, or that this seed or this machine cannot replay."""


def read_header(stream: bytes) -> dict[str, Any]:
    """The header of a stream, after its lengths and checksum have been verified.

    Raises:
        CorruptStreamError: not a stream, truncated, or damaged.
    """
    return unpack(stream)[0]


def digest(data: bytes) -> str:
    """BLAKE2b of 16 bytes, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def pack(header: dict[str, Any], words: NDArray[np.uint32]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    head, payload = zlib.compress(text.encode(), 9), words.astype("<u4").tobytes()
    check = hashlib.blake2b(head + payload, digest_size=16).digest()
    return _PREFIX.pack(MAGIC, VERSION, len(head), len(payload), check) + head + payload


def unpack(stream: bytes) -> tuple[dict[str, Any], NDArray[np.uint32]]:
    if not isinstance(stream, bytes | bytearray | memoryview):
        raise TypeError(f"expected the stream as bytes, got {type(stream).__name__}")
    stream = bytes(stream)
    if len(stream) < _PREFIX.size:
        raise CorruptStreamError(
            f"truncated stream: expected at least {_PREFIX.size} bytes, got {len(stream)}"
        )
    magic, version, head_size, payload_size, check = _PREFIX.unpack_from(stream)
    if magic != MAGIC:
        raise CorruptStreamError(f"not a stream of this codec: expected {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise CorruptStreamError(f"unknown format version: expected {VERSION}, got {version}")
    body = stream[_PREFIX.size :]
    if len(body) != head_size + payload_size:
        kind = "truncated stream" if len(body) < head_size + payload_size else "damaged stream"
        raise CorruptStreamError(
            f"{kind}: expected {_PREFIX.size + head_size + payload_size} bytes, got {len(stream)}"
        )
    if hashlib.blake2b(body, digest_size=16).digest() != check:
        raise CorruptStreamError("damaged stream: its bytes do not have the checksum they carry")
    try:
        header = json.loads(zlib.decompress(body[:head_size]))
        words = np.frombuffer(body[head_size:], "<u4").astype(np.uint32)
    except (zlib.error, ValueError) as error:
        raise CorruptStreamError(f"unreadable header: {error}") from None
    return header, words
