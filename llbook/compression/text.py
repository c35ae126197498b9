"""Texts as symbols, coded word by word; and what general compressors make of them."""

from __future__ import annotations

import gzip
import lzma
import re
from typing import Any

import numpy as np
import zstandard
from numpy.typing import ArrayLike

from llbook.compression.codec import Trace, decode, encode
from llbook.compression.coders import LanguageCoder, Symbols
from llbook.compression.stream import CorruptStreamError, read_header

__all__ = ["decode_text", "encode_text", "general_compressors", "join_words", "split_words"]

_WORD = re.compile(r" ?[\w-]+|[\s\S]")


def split_words(text: str) -> tuple[Symbols, list[str]]:
    """Text as symbols: a word with the space before it, or any other single character.

    Returns:
        symbols, int32, shape (M,), and the alphabet, sorted, V strings;
        ``"".join(alphabet[s] for s in symbols) == text``.

    Raises:
        ValueError: an empty text.
    """
    words = _WORD.findall(text)
    if not words:
        raise ValueError("expected a text, got an empty one")
    alphabet = sorted(set(words))
    index = {word: i for i, word in enumerate(alphabet)}
    return np.array([index[word] for word in words], np.int32), alphabet


def join_words(symbols: ArrayLike, alphabet: list[str]) -> str:
    """The inverse of :func:`split_words`."""
    return "".join(alphabet[s] for s in np.asarray(symbols))


def encode_text(text: str, *, seed: int = 0, trace: Trace | None = None, **options: Any) -> bytes:
    """Code a text word by word; its alphabet travels in the header and is paid for there.

    Args:
        options: of :class:`LanguageCoder`, but for its vocabulary.

    Raises:
        TypeError, ValueError: as :class:`LanguageCoder` and :func:`encode`; a text with fewer
            than two different words.
    """
    symbols, alphabet = split_words(text)
    coder = LanguageCoder(vocabulary=len(alphabet), **options)
    return encode(symbols, coder, seed=seed, alphabet=alphabet, trace=trace)


def decode_text(stream: bytes, *, seed: int = 0) -> str:
    """The inverse of :func:`encode_text`.

    Raises:
        CorruptStreamError: as :func:`decode`, or a stream without an alphabet.
    """
    alphabet = read_header(stream).get("alphabet")
    if alphabet is None:
        raise CorruptStreamError("the stream holds symbols without an alphabet, not a text")
    return join_words(decode(stream, seed=seed), alphabet)


def general_compressors(data: bytes) -> dict[str, int]:
    """Bytes that gzip, xz and zstd make of ``data``, each at (nearly) its strongest setting."""
    strong = zstandard.ZstdCompressionParameters.from_level(19, enable_ldm=True, window_log=27)
    return {
        "gzip -9": len(gzip.compress(data, 9, mtime=0)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "zstd -19 --long": len(zstandard.ZstdCompressor(compression_params=strong).compress(data)),
    }
