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

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import constriction
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from llbook.compression.coders import (
    CODERS,
    Coder,
    Exchange,
    LabelModel,
    LanguageModel,
    Symbols,
)
from llbook.compression.stream import CorruptStreamError, digest, pack, unpack

__all__ = ["Trace", "code_length", "decode", "encode"]

_FAMILY = constriction.stream.model.Categorical(perfect=False)


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
    model: LanguageModel | LabelModel,
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
    batches = list(model.batches())
    for t, batch in enumerate(batches):
        if exchange is not None:

            def checked(
                probabilities: NDArray[np.float32], positions: NDArray[np.int64], t: int = t
            ) -> None:
                if not np.isfinite(probabilities).all():
                    raise FloatingPointError(diverged.format(t, rate))
                exchange(probabilities, positions)

            with torch.no_grad():
                model.predict(batch, symbols, checked)
        if exchange is None or t + 1 < len(batches):
            with torch.enable_grad():
                loss, count = model.loss(batch, symbols)
                optimiser.zero_grad()
                loss.backward()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(diverged.format(t, rate))
            optimiser.step()
        else:  # nothing is coded after the last batch
            value, count = math.nan, 0
        after(count, value)


def _check(symbols: ArrayLike, coder: Coder) -> Symbols:
    if type(coder) not in CODERS.values():
        raise TypeError(f"expected a LanguageCoder or a LabelCoder, got {type(coder).__name__}")
    array = np.asarray(symbols)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected symbols of shape (M,) with M ≥ 1, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"symbols must be integers, got {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= coder.vocabulary:
        raise ValueError(f"symbols must lie in [0, {coder.vocabulary}), got {low}..{high}")
    return array.astype(np.int32)


def _start(coder: Coder, count: int, seed: int) -> LanguageModel | LabelModel:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    return coder.start(count, seed)


def code_length(symbols: ArrayLike, coder: Coder, *, seed: int = 0) -> Trace:
    """Σ_t B·L_t of Theorem A.1 without writing a byte: train, and add up the losses.

    Args:
        symbols: integers in [0, V), shape (M,).

    Returns:
        the trace, with nothing in ``written``.

    Raises:
        TypeError, ValueError: see :func:`encode`.
        FloatingPointError: the loss stopped being finite.
    """
    array = _check(symbols, coder)
    trace = Trace()

    def after(count: int, loss: float) -> None:
        trace.symbols.append(count)
        trace.bits.append(count * loss / math.log(2))

    with _replayable():
        _train_while(_start(coder, len(array), seed), array, None, after)
    return trace


def encode(
    symbols: ArrayLike,
    coder: Coder,
    *,
    seed: int = 0,
    alphabet: list[str] | None = None,
    trace: Trace | None = None,
) -> bytes:
    """Code symbols with a model that trains on them as it goes (Algorithm 1).

    Args:
        symbols: integers in [0, V), shape (M,), M ≥ 1.
        coder: the model and its training; V and all else but the seed go into
            the header.
        seed: of θ_0 (and of a :class:`LabelCoder`'s inputs). The decoder needs it.
        alphabet: the strings that symbols stand for, kept in the header.
        trace: filled batch by batch, if given.

    Returns:
        the stream: 30 bytes of magic, version, lengths and checksum; the header, canonical
        JSON packed by zlib; the range coder's words, little-endian.

    Raises:
        TypeError: symbols that are not integers, or an unknown kind of coder.
        ValueError: symbols outside [0, V) or of the wrong shape, a negative seed, an
            alphabet of another size than V.
        FloatingPointError: training diverged.
    """
    array = _check(symbols, coder)
    if alphabet is not None and len(alphabet) != coder.vocabulary:
        raise ValueError(f"the alphabet has {len(alphabet)} entries, V is {coder.vocabulary}")
    trace = Trace() if trace is None else trace
    model = _start(coder, len(array), seed)
    header = {
        "model": coder.name,
        "config": asdict(coder),
        "symbols": len(array),
        "vocabulary": coder.vocabulary,
        "symbols_blake2b": digest(array.astype("<i4").tobytes()),
        "start_blake2b": digest(model.fingerprint()),
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
    return pack(header, encoder.get_compressed())


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
    header, words = unpack(stream)
    try:
        coder = CODERS[header["model"]](**header["config"])
        count, expected = int(header["symbols"]), header["symbols_blake2b"]
        start = header["start_blake2b"]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptStreamError(f"the header does not describe a coder: {error!r}") from None
    model = _start(coder, count, seed)
    if digest(model.fingerprint()) != start:
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
    if failure or digest(symbols.astype("<i4").tobytes()) != expected:
        raise CorruptStreamError(
            "the replay diverged from the encoder's: the decoded symbols do not have the "
            f"checksum in the header{failure}. The stream was made with "
            f"{header.get('platform')}, this is {_platform()}"
        )
    return symbols


def _platform() -> str:
    return f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
