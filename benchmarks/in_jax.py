"""The same policy gradient in JAX, as its users would write it: ``jit`` of ``grad`` of a scan.

Optional: ``python -m pip install jax``. Each step of the scan stands under ``jax.checkpoint``,
so that what is kept is θ_0 … θ_T, as the engine keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llbook.tasks.language import Transformer
from llbook.tasks.transformer import PAD

__all__ = ["MISSING", "available", "policy_gradient_in_jax"]

MISSING = "JAX is not installed, so nothing was compared with it: python -m pip install jax"


def available() -> bool:
    """Whether JAX is installed."""
    return find_spec("jax") is not None


def policy_gradient_in_jax(task: Transformer) -> Callable[[Tensor], Tensor]:
    """A function of γ, shape (T, N), that gives ∂J/∂γ of the same shape; compiled on its first call.

    Raises:
        ImportError: JAX is not installed.
        TypeError: a θ_0 that is not float32, JAX's own precision.
    """
    if not available():
        raise ImportError(MISSING)
    if task.initial.dtype != torch.float32:
        raise TypeError(f"JAX computes in float32, got a task in {task.initial.dtype}")
    import jax
    import jax.numpy as jnp

    initial, training, desired = (
        jnp.asarray(t.numpy().astype(kind))
        for t, kind in (
            (task.initial, np.float32),
            (task.training, np.int32),
            (task.desired, np.int32),
        )
    )

    def losses(theta: Any, examples: Any) -> Any:
        targets = examples[:, 1:]
        log_p = jax.nn.log_softmax(_scores(task, theta, jnp.maximum(examples[:, :-1], 0)))
        picked = jnp.take_along_axis(log_p, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
        real = targets != PAD
        return -(picked * real).sum(1) / real.sum(1)

    def step(theta: Any, weights: Any) -> tuple[Any, Any]:
        slope = jax.grad(lambda at: weights @ losses(at, training))(theta)
        theta = theta - task.learning_rate * slope
        return theta, losses(theta, desired).mean()

    def area(policy: Any) -> Any:
        return jax.lax.scan(jax.checkpoint(step), initial, policy)[1].sum()

    gradient = jax.jit(jax.grad(area))
    return lambda policy: torch.from_numpy(np.array(gradient(jnp.asarray(policy.numpy()))))


def _scores(task: Transformer, theta: Any, tokens: Any) -> Any:
    """The logits, shape (n, L, V)."""
    import jax
    import jax.numpy as jnp

    architecture = task.architecture
    shapes = architecture.shapes()
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    w = {
        name: piece.reshape(shape)
        for (name, shape), piece in zip(
            shapes.items(), jnp.split(theta, ends[:-1].tolist()), strict=True
        )
    }
    count, length = tokens.shape
    heads, hidden = architecture.heads, architecture.hidden
    width = hidden // heads if architecture.attention_scale == "head" else hidden
    earlier = jnp.tril(jnp.ones((length, length), bool))

    def norm(x: Any, name: str) -> Any:
        rate = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        return x * rate * w[name][0] + w[name][1]

    def activation(y: Any) -> Any:
        relu = architecture.activation == "relu"
        return jax.nn.relu(y) if relu else jax.nn.gelu(y, approximate=False)

    x = w["tokens"][tokens] + w["positions"][:length]
    for layer in range(architecture.layers):
        y = norm(x, f"{layer}.attention.norm") @ w[f"{layer}.attention.in"]
        q, k, v = jnp.moveaxis(y.reshape(count, length, 3, heads, -1), 2, 0)
        scores = jnp.einsum("nihs,njhs->nhij", q, k) * width**-0.5
        share = jax.nn.softmax(jnp.where(earlier, scores, -jnp.inf))
        mixed = jnp.einsum("nhij,njhs->nihs", share, v).reshape(x.shape)
        x = x + mixed @ w[f"{layer}.attention.out"]
        y = norm(x, f"{layer}.feedforward.norm") @ w[f"{layer}.feedforward.in"]
        x = x + activation(y) @ w[f"{layer}.feedforward.out"]
    return norm(x, "norm") @ w["out"]
