"""Training as a lossless code (App. A): a codec driven by a model that trains as it codes.

Batch t is coded with p_{θ_t}, *before* the model trains on it (Algorithms 1 and
2). The decoder starts from the same θ_0, decodes batch t with the same p_{θ_t},
trains on what it decoded, and so owns θ_{t+1}. No parameter is ever sent: the
code is the range coder's output, Σ_t B·L_t bits long but for the coder's
overhead, and a header.

What makes the replay exact. A range decoder needs the encoder's probabilities
*bit for bit*. Floating-point sums depend on the order of operations, and that
depends on shapes, on the number of threads and on the kernel chosen. So

1. encoder and decoder run one and the same function, which asks for the symbols
   of one position at a time for all lanes at once. The encoder, which could read
   a whole window in one go, does not: a window-sized matrix product rounds
   differently from the one-position products that the decoder is bound to;
2. both use one thread and deterministic kernels, and restore the settings after;
3. everything is float32 from a seeded CPU generator, in PyTorch's own aligned
   memory.

The same machine and PyTorch give the same bits. Another processor or version
may not, and the checksum of the symbols then says so.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import constriction
import numpy as np
import torch
import zstandard
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from llbook.parameters import Parameters
from llbook.tasks import perceptron
from llbook.tasks.transformer import (
    PAD,
    Architecture,
    Prefix,
    initial_parameters,
    logits,
    token_losses,
)

__all__ = [
    "CompressionConfig",
    "CorruptStreamError",
    "LabelCoder",
    "LanguageCoder",
    "Trace",
    "code_length",
    "decode",
    "decode_text",
    "encode",
    "encode_text",
    "general_compressors",
    "join_words",
    "label_inputs",
    "read_header",
    "split_words",
]

MAGIC = b"LLBC"
VERSION = 1
_PREFIX = struct.Struct("<4sHII16s")  # magic, version, header bytes, payload bytes, checksum
_FAMILY = constriction.stream.model.Categorical(perfect=False)

Symbols = NDArray[np.int32]


class CorruptStreamError(ValueError):
    """A stream that is damaged, or that this seed or this machine cannot replay."""


def _check_positive(config: object, integers: tuple[str, ...]) -> None:
    for name in integers:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    rate, optimiser = config.learning_rate, config.optimiser  # type: ignore[attr-defined]
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"learning_rate must be positive and finite, got {rate}")
    if optimiser not in ("sgd", "adam"):
        raise ValueError(f"optimiser must be 'sgd' or 'adam', got {optimiser!r}")


@dataclass(frozen=True)
class LanguageCoder:
    """A Transformer that predicts the next symbol of a text.

    The text is laid out in ``lanes`` equal stretches, read side by side; batch t
    is the t-th window of each. A window's first symbol is predicted from the one
    before it in the lane.

    Attributes:
        vocabulary: V.
        lanes, window: a batch is lanes × window symbols (B of the paper).
        hidden, layers, heads: the model, see :class:`llbook.tasks.transformer.Architecture`.
        optimiser: ``"sgd"``, as in the paper, or ``"adam"``.
        learning_rate: η, per batch.

    Raises:
        TypeError, ValueError: a value of the wrong type or out of range.
    """

    vocabulary: int
    lanes: int = 8
    window: int = 32
    hidden: int = 64
    layers: int = 1
    heads: int = 4
    optimiser: str = "adam"
    learning_rate: float = 6e-3

    def __post_init__(self) -> None:
        _check_positive(self, ("lanes", "window"))
        self.architecture()

    def architecture(self) -> Architecture:
        return Architecture(
            vocabulary=self.vocabulary,
            context=self.window,
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
        )


@dataclass(frozen=True)
class LabelCoder:
    """A perceptron that predicts labels: a language model of one step, V = 2 (A.3).

    The inputs z_n are shared context, drawn from the seed by both sides
    (:func:`label_inputs`); only the labels are coded, 0 for -1 and 1 for +1.

    Attributes:
        dimension: D.
        batch: labels coded between two updates.
        optimiser, learning_rate: as in :class:`LanguageCoder`.
    """

    dimension: int
    batch: int = 16
    optimiser: str = "sgd"
    learning_rate: float = 0.1

    vocabulary = 2

    def __post_init__(self) -> None:
        _check_positive(self, ("dimension", "batch"))


class CompressionConfig(Parameters):
    """Parameters of the compression chapter; the defaults are those of `laptop`."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of corpus, labels and θ_0")
    corpus: str = Field("", description="a local file of stories; empty: the grammar's")
    story_count: int = Field(350, ge=1, le=10**6, description="stories in the corpus")
    lanes: int = Field(8, ge=1, le=4096, description="stretches of the text read side by side")
    window: int = Field(32, ge=1, le=1024, description="symbols of a lane in a batch")
    hidden: int = Field(64, ge=4, le=1024, multiple_of=4, description="width of the model")
    layers: int = Field(1, ge=1, le=16, description="blocks of the model")
    learning_rate: float = Field(6e-3, gt=0, le=10, description="η of Adam")
    label_count: int = Field(4096, ge=16, le=2**20, description="M, labels coded")
    dimension: int = Field(32, ge=1, le=4096, description="D, inputs of the perceptron")


Config = LanguageCoder | LabelCoder
_CODERS: dict[str, type[Config]] = {"language": LanguageCoder, "labels": LabelCoder}


@dataclass
class Trace:
    """One entry a batch.

    Attributes:
        symbols: number of symbols coded.
        bits: Σ -log2 p over the batch, B·L_t of Theorem A.1.
        written: bits that the range coder has put out so far, this batch included;
            empty where nothing was coded.
    """

    symbols: list[int] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    @property
    def losses(self) -> NDArray[np.float64]:
        """L_t in nats a symbol, shape (T,)."""
        return np.array(self.bits) * math.log(2) / np.array(self.symbols)

    @property
    def total_bits(self) -> float:
        """Σ_t B·L_t in bits."""
        return math.fsum(self.bits)


# (probabilities (m, V), positions (m,)) → the symbols at those positions
Exchange = Callable[[NDArray[np.float32], NDArray[np.int64]], None]


class _Language:
    """θ and the layout of ``count`` symbols; a span is a range of columns of the lanes."""

    def __init__(self, config: LanguageCoder, count: int, seed: int) -> None:
        self.config, self.count = config, count
        self.architecture = config.architecture()
        self.theta = initial_parameters(self.architecture, seed)
        full, rest = divmod(count, config.lanes)
        self.columns = full + (rest > 0)
        lanes = np.arange(config.lanes)
        self.starts = lanes * full + np.minimum(lanes, rest)
        self.full, self.rest = full, rest

    def fingerprint(self) -> bytes:
        return self.theta.numpy().tobytes()

    def spans(self) -> Iterator[range]:
        step = self.config.window
        for first in range(0, self.columns, step):
            yield range(first, min(first + step, self.columns))

    def _positions(self, column: int) -> NDArray[np.int64]:
        # the first `rest` lanes are one symbol longer
        return (self.starts if column < self.full else self.starts[: self.rest]) + column

    def _read(self, column: int, symbols: Symbols, missing: int) -> Tensor:
        column_symbols = torch.full((self.config.lanes,), missing, dtype=torch.int64)
        if column >= 0:
            positions = self._positions(column)
            column_symbols[: len(positions)] = torch.from_numpy(symbols[positions]).long()
        return column_symbols

    def predict(self, span: range, symbols: Symbols, exchange: Exchange) -> None:
        prefix = Prefix()
        for column in span:
            previous = self._read(column - 1, symbols, missing=0)
            scores = logits(self.architecture, self.theta, previous[:, None], prefix)[:, 0]
            positions = self._positions(column)
            exchange(scores.softmax(-1).numpy()[: len(positions)], positions)

    def loss(self, span: range, symbols: Symbols) -> tuple[Tensor, int]:
        inputs = torch.stack([self._read(c - 1, symbols, missing=0) for c in span], 1)
        targets = torch.stack([self._read(c, symbols, missing=PAD) for c in span], 1)
        count = int((targets != PAD).sum())
        scores = logits(self.architecture, self.theta, inputs)
        return token_losses(scores, targets).sum() / count, count


class _Labels:
    """θ and the shared inputs of ``count`` labels; a span is a range of labels."""

    def __init__(self, config: LabelCoder, count: int, seed: int) -> None:
        self.config, self.count = config, count
        self.inputs = label_inputs(count, config.dimension, seed)
        self.theta = perceptron.initial_parameters("linear", config.dimension, seed=seed)

    def fingerprint(self) -> bytes:
        return self.theta.numpy().tobytes() + self.inputs.numpy().tobytes()

    def spans(self) -> Iterator[range]:
        for first in range(0, self.count, self.config.batch):
            yield range(first, min(first + self.config.batch, self.count))

    def predict(self, span: range, symbols: Symbols, exchange: Exchange) -> None:
        # labels are no input of each other: a batch is one call
        outputs = self.inputs[span.start : span.stop] @ self.theta
        probabilities = torch.stack([-outputs, outputs], 1).sigmoid().numpy()
        exchange(probabilities, np.arange(span.start, span.stop))

    def loss(self, span: range, symbols: Symbols) -> tuple[Tensor, int]:
        signs = 2.0 * torch.from_numpy(symbols[span.start : span.stop]).float() - 1
        outputs = self.inputs[span.start : span.stop] @ self.theta
        return softplus(-signs * outputs).mean(), len(span)


def label_inputs(count: int, dimension: int, seed: int) -> Tensor:
    """The inputs that both sides of a :class:`LabelCoder` know: N(0, 3I), shape (count, D)."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return (draw * 3**0.5).float()


def _kind(config: Config) -> str:
    for name, coder in _CODERS.items():
        if isinstance(config, coder):
            return name
    raise TypeError(f"expected a LanguageCoder or a LabelCoder, got {type(config).__name__}")


def _build(config: Config, count: int, seed: int) -> _Language | _Labels:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    if isinstance(config, LanguageCoder):
        return _Language(config, count, seed)
    return _Labels(config, count, seed)


@contextmanager
def _replayable() -> Iterator[None]:
    """One thread and deterministic kernels, as they were again afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)


def _train_while(
    model: _Language | _Labels,
    symbols: Symbols,
    exchange: Exchange | None,
    after: Callable[[int, float], None],
) -> None:
    """Algorithms 1 and 2, which differ only in ``exchange``.

    With ``exchange=None`` nothing is coded, and the loss comes from reading whole windows.
    ``after`` gets the number of symbols of a batch and the loss before its update, in nats.
    """
    theta = model.theta.requires_grad_(True)
    rate = model.config.learning_rate
    # foreach=False: one update of one vector, with no choice of kernel by size
    optimiser = (
        torch.optim.SGD([theta], lr=rate, foreach=False)
        if model.config.optimiser == "sgd"
        else torch.optim.Adam([theta], lr=rate, betas=(0.9, 0.99), foreach=False)
    )
    diverged = "training diverged before batch {} (learning rate {}); lower it"
    spans = list(model.spans())
    for t, span in enumerate(spans):
        if exchange is not None:

            def checked(
                probabilities: NDArray[np.float32], positions: NDArray[np.int64], t: int = t
            ) -> None:
                if not np.isfinite(probabilities).all():
                    raise FloatingPointError(diverged.format(t, rate))
                exchange(probabilities, positions)

            with torch.no_grad():
                model.predict(span, symbols, checked)
        if exchange is None or t + 1 < len(spans):
            with torch.enable_grad():
                loss, count = model.loss(span, symbols)
                optimiser.zero_grad()
                loss.backward()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(diverged.format(t, rate))
            optimiser.step()
        else:  # nothing is coded after the last batch
            value, count = math.nan, 0
        after(count, value)


def _check_symbols(symbols: ArrayLike, vocabulary: int) -> Symbols:
    array = np.asarray(symbols)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected symbols of shape (M,) with M ≥ 1, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"symbols must be integers, got {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocabulary:
        raise ValueError(f"symbols must lie in [0, {vocabulary}), got {low}..{high}")
    return array.astype(np.int32)


def code_length(symbols: ArrayLike, config: Config, *, seed: int = 0) -> Trace:
    """Σ_t B·L_t of Theorem A.1 without writing a byte: train, and add up the losses.

    Args:
        symbols: integers in [0, V), shape (M,).

    Returns:
        the trace, with nothing in ``written``.

    Raises:
        TypeError, ValueError: see :func:`encode`.
        FloatingPointError: the loss stopped being finite.
    """
    _kind(config)
    array = _check_symbols(symbols, config.vocabulary)
    trace = Trace()

    def after(count: int, loss: float) -> None:
        trace.symbols.append(count)
        trace.bits.append(count * loss / math.log(2))

    with _replayable():
        _train_while(_build(config, len(array), seed), array, None, after)
    return trace


def encode(
    symbols: ArrayLike,
    config: Config,
    *,
    seed: int = 0,
    alphabet: list[str] | None = None,
    trace: Trace | None = None,
) -> bytes:
    """Code symbols with a model that trains on them as it goes (Algorithm 1).

    Args:
        symbols: integers in [0, V), shape (M,), M ≥ 1.
        config: the model and its training; V and all else but the seed go into
            the header.
        seed: of θ_0 (and of a :class:`LabelCoder`'s inputs). The decoder needs it.
        alphabet: the strings that symbols stand for, kept in the header.
        trace: filled batch by batch, if given.

    Returns:
        the stream: 30 bytes of magic, version, lengths and checksum; the header, canonical
        JSON packed by zlib; the range coder's words, little-endian.

    Raises:
        TypeError: symbols that are not integers, or an unknown kind of config.
        ValueError: symbols outside [0, V) or of the wrong shape, a negative seed, an
            alphabet of another size than V.
        FloatingPointError: training diverged.
    """
    model_name = _kind(config)
    array = _check_symbols(symbols, config.vocabulary)
    if alphabet is not None and len(alphabet) != config.vocabulary:
        raise ValueError(f"the alphabet has {len(alphabet)} entries, V is {config.vocabulary}")
    trace = Trace() if trace is None else trace
    model = _build(config, len(array), seed)
    header = {
        "model": model_name,
        "config": asdict(config),
        "symbols": len(array),
        "vocabulary": config.vocabulary,
        "symbols_blake2b": _digest(array.astype("<i4").tobytes()),
        "start_blake2b": _digest(model.fingerprint()),
        "platform": _platform(),
    } | ({"alphabet": alphabet} if alphabet is not None else {})
    encoder = constriction.stream.queue.RangeEncoder()
    counted: list[tuple[int, float]] = []

    def exchange(probabilities: NDArray[np.float32], positions: NDArray[np.int64]) -> None:
        chosen = array[positions]
        encoder.encode(chosen, _FAMILY, probabilities)
        p = probabilities[np.arange(len(chosen)), chosen].astype(np.float64)
        bits = -np.log2(np.maximum(p, np.finfo(np.float32).tiny)).sum()
        counted.append((len(chosen), float(bits)))

    def after(_: int, __: float) -> None:
        trace.symbols.append(sum(n for n, _ in counted))
        trace.bits.append(math.fsum(bits for _, bits in counted))
        trace.written.append(encoder.num_bits())
        counted.clear()

    with _replayable():
        _train_while(model, array, exchange, after)
    return _pack(header, encoder.get_compressed())


def decode(stream: bytes, *, seed: int = 0) -> Symbols:
    """Replay the training that made a stream and return its symbols (Algorithm 2).

    Args:
        stream: what :func:`encode` returned.
        seed: the one given there; it is not in the stream.

    Returns:
        int32, shape (M,).

    Raises:
        CorruptStreamError: not a stream, truncated, damaged, a wrong seed, or a
            machine whose arithmetic replays the training differently; the message
            says which.
    """
    return _decode(stream, seed)[0]


def _decode(stream: bytes, seed: int) -> tuple[Symbols, dict[str, Any]]:
    header, words = _unpack(stream)
    try:
        config = _CODERS[header["model"]](**header["config"])
        count, expected = int(header["symbols"]), header["symbols_blake2b"]
        start = header["start_blake2b"]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptStreamError(f"the header does not describe a coder: {error!r}") from None
    model = _build(config, count, seed)
    if _digest(model.fingerprint()) != start:
        raise CorruptStreamError(
            f"wrong seed: {seed} does not give the θ_0 that this stream was coded with"
        )
    symbols = np.zeros(count, np.int32)
    decoder = constriction.stream.queue.RangeDecoder(words)

    def exchange(probabilities: NDArray[np.float32], positions: NDArray[np.int64]) -> None:
        symbols[positions] = decoder.decode(_FAMILY, probabilities)

    failure = ""
    try:
        with _replayable():
            _train_while(model, symbols, exchange, lambda _, __: None)
    except (AssertionError, ValueError, FloatingPointError) as error:
        failure = f" ({error})"
    if failure or _digest(symbols.astype("<i4").tobytes()) != expected:
        raise CorruptStreamError(
            "the replay diverged from the encoder's: the decoded symbols do not have the "
            f"checksum in the header{failure}. The stream was made with "
            f"{header.get('platform')}, this is {_platform()}"
        )
    return symbols, header


def read_header(stream: bytes) -> dict[str, Any]:
    """The header of a stream, after its lengths and checksum have been verified.

    Raises:
        CorruptStreamError: not a stream, truncated, or damaged.
    """
    return _unpack(stream)[0]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _platform() -> str:
    return f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def _pack(header: dict[str, Any], words: NDArray[np.uint32]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    head, payload = zlib.compress(text.encode(), 9), words.astype("<u4").tobytes()
    check = hashlib.blake2b(head + payload, digest_size=16).digest()
    return _PREFIX.pack(MAGIC, VERSION, len(head), len(payload), check) + head + payload


def _unpack(stream: bytes) -> tuple[dict[str, Any], NDArray[np.uint32]]:
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


def general_compressors(data: bytes) -> dict[str, int]:
    """Bytes that gzip, xz and zstd make of ``data``, each at (nearly) its strongest setting."""
    strong = zstandard.ZstdCompressionParameters.from_level(19, enable_ldm=True, window_log=27)
    return {
        "gzip -9": len(gzip.compress(data, 9, mtime=0)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "zstd -19 --long": len(zstandard.ZstdCompressor(compression_params=strong).compress(data)),
    }


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
    config = LanguageCoder(vocabulary=len(alphabet), **options)
    return encode(symbols, config, seed=seed, alphabet=alphabet, trace=trace)


def decode_text(stream: bytes, *, seed: int = 0) -> str:
    """The inverse of :func:`encode_text`.

    Raises:
        CorruptStreamError: as :func:`decode`, or a stream without an alphabet.
    """
    if "alphabet" not in read_header(stream):
        raise CorruptStreamError("the stream holds symbols without an alphabet, not a text")
    symbols, header = _decode(stream, seed)
    return join_words(symbols, header["alphabet"])
