"""What the machine itself allows: its matrix products, its memory, and how much work there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor

from llbook.tasks.transformer import Architecture

__all__ = [
    "bandwidth",
    "four_products",
    "gemm_rate",
    "take_turns",
    "transformer_flops",
    "wait",
    "worthwhile",
]


def wait(device: torch.device | str = "cpu") -> None:
    """Return when the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


Key = TypeVar("Key")


def take_turns(
    functions: Mapping[Key, Callable[[], object]],
    *,
    rounds: int,
    device: torch.device | str = "cpu",
) -> dict[Key, float]:
    """Seconds of each function: the median over rounds in which they take turns.

    Turns, because a shared machine has slow minutes: they then fall on all alike, and
    ratios stand. One unmeasured round goes before, for compilers and caches.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            wait(device)
            began = time.perf_counter()
            function()
            wait(device)
            if number > 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in seconds.items()}


def _rate(
    function: Callable[[], object], work: float, device: torch.device | str, lasting: float
) -> float:
    """Work per second: the best of several stretches, as a floor wants it."""
    function()
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < lasting:
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        best = min(best, time.perf_counter() - start)
    return work / best


def gemm_rate(
    dtype: torch.dtype,
    *,
    shape: tuple[int, int, int] = (2048, 2048, 2048),
    device: torch.device | str = "cpu",
    lasting: float = 1.5,
) -> float:
    """FLOP/s of one (m, k) @ (k, n) product, two per multiply-add."""
    m, k, n = shape
    a = torch.randn(m, k, device=device).to(dtype)
    b = torch.randn(k, n, device=device).to(dtype)
    out = torch.empty(m, n, dtype=dtype, device=device)
    return _rate(lambda: torch.mm(a, b, out=out), 2.0 * m * k * n, device, lasting)


def worthwhile(dtype: torch.dtype, *, device: torch.device | str = "cpu") -> bool:
    """Whether products of a type take less than ten times those in float32: processors without
    instructions for bfloat16 take four hundred times as long, and a step minutes."""
    rates = [
        gemm_rate(kind, shape=(128, 128, 128), device=device, lasting=0.05)
        for kind in (dtype, torch.float32)
    ]
    return rates[0] > rates[1] / 10


def bandwidth(
    size: int = 2**28, *, device: torch.device | str = "cpu", lasting: float = 1.0
) -> float:
    """Bytes per second of a + b → c on arrays of ``size`` bytes, far larger than any cache."""
    a, b = (torch.zeros(size // 4, device=device) for _ in range(2))
    c = torch.zeros_like(a)
    return _rate(lambda: torch.add(a, b, out=c), 3.0 * size, device, lasting)


def four_products(inputs: Tensor) -> Callable[[], object]:
    """The matrix–vector products of one perceptron step, Z θ, Zᵀ p, Z λ, Zᵀ q, and nothing else."""
    theta, pull = inputs.new_ones(inputs.shape[1]), inputs.new_ones(inputs.shape[0])
    rows, columns = torch.empty_like(pull), torch.empty_like(theta)

    def products() -> None:
        for _ in range(2):
            torch.mv(inputs, theta, out=rows)
            torch.mv(inputs.T, pull, out=columns)

    return products


def transformer_flops(architecture: Architecture, examples: int, length: int) -> dict[str, float]:
    """FLOPs of the matrix products alone, for ``examples`` of ``length`` predicted positions.

    With F = 2·tokens·(12·layers·h² + h·V) for the linear maps and
    A = 2·tokens·2·layers·length·h for attention (all of its square):

    - ``forward``: F + A;
    - ``gradient``: one product forward, two backward: 3 (F + A);
    - ``tangents``: a value and two products in its tangent: 3 (F + A);
    - ``costate_products``: those three forward; backward through y = x W and
      ẏ = ẋ W + x Ẇ five products, Ẇ being constant, and six through attention, where
      no factor is: 8 F + 9 A.
    """
    width = architecture.hidden
    tokens = examples * length
    linear = architecture.layers * (4 + 2 * architecture.expansion) * width**2
    maps = 2.0 * tokens * (linear + width * architecture.vocabulary)
    attention = 2.0 * tokens * 2 * architecture.layers * length * width
    return {
        "forward": maps + attention,
        "gradient": 3 * (maps + attention),
        "tangents": 3 * (maps + attention),
        "costate_products": 8 * maps + 9 * attention,
    }
