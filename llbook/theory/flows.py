"""Learning processes and costates in continuous time (Eqs. 3 and 4).

Gradient flow θ' = -Σ_n γ_n(t) ∇l_n(θ) and its costate

    λ' = -∇L_dsr + H λ,   H = Σ_n γ_n ∇²l_n,   λ(T) = 0,

solved to near rounding by SciPy's DOP853, and the terms of the identity

    CT_n = -d/dt(λ·g_n) + Σ_m γ_m λ·(H_m g_n - H_n g_m).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch.func import hessian, jacrev

from llbook.tasks.task import Task

__all__ = [
    "Derivatives",
    "Flow",
    "Identity",
    "brackets",
    "derivatives",
    "euler_identity",
    "exchange_curvature",
    "flow_identity",
    "gradient_flow",
    "sample",
    "smooth_policy",
]

Weights = Callable[[float], np.ndarray]


class Derivatives(NamedTuple):
    """First and second derivatives of a small task at one θ, in float64.

    Attributes:
        desired_loss: L_dsr(θ) in nats.
        desired_gradient: G, shape (P,).
        gradients: g_n, shape (N, P).
        hessians: H_n, shape (N, P, P).
    """

    desired_loss: float
    desired_gradient: np.ndarray
    gradients: np.ndarray
    hessians: np.ndarray


def derivatives(task: Task, theta: np.ndarray) -> Derivatives:
    """All first and second derivatives at ``theta`` (P,): for tasks of a few parameters.

    Raises:
        ValueError: a θ of the wrong shape, or a task with more than 64 parameters.
    """
    theta = np.asarray(theta, dtype=float)
    if theta.shape != tuple(task.initial.shape):
        raise ValueError(f"expected θ of shape {tuple(task.initial.shape)}, got {theta.shape}")
    if theta.size > 64:
        raise ValueError(f"dense Hessians are for at most 64 parameters, got {theta.size}")
    if (linear := task.linear_form()) is None:
        point = torch.from_numpy(theta)

        def training(p: torch.Tensor) -> torch.Tensor:
            return task.losses(p, task.training)

        def wanted(p: torch.Tensor) -> torch.Tensor:
            return task.mean_loss(p, task.desired)

        return Derivatives(
            float(wanted(point)),
            jacrev(wanted)(point).numpy(),
            jacrev(training)(point).numpy(),
            hessian(training)(point).numpy(),
        )
    link = _logistic if linear.logistic else _square
    _, slope, curve = link(linear.inputs @ theta - linear.targets)
    losses, pull, _ = link(linear.wanted @ theta - linear.aims)
    outer = linear.inputs[:, :, None] * linear.inputs[:, None, :]
    return Derivatives(
        float(losses.mean()),
        pull @ linear.wanted / len(losses),
        slope[:, None] * linear.inputs,
        curve[:, None, None] * outer,
    )


def _logistic(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """softplus(-m), its first and its second derivative."""
    pull = 1 / (1 + np.exp(margin))
    return np.logaddexp(0, -margin), -pull, pull * (1 - pull)


def _square(rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m²/2, its first and its second derivative."""
    return rest**2 / 2, rest, np.ones_like(rest)


def brackets(at: Derivatives, costate: np.ndarray) -> np.ndarray:
    """λ·(H_m g_n - H_n g_m) for all n, m, shape (N, N), antisymmetric.

    Entry [n, m] is the costate's product with the Lie bracket of the two
    gradient fields; all entries are zero where the flows commute.
    """
    twisted = at.hessians @ costate  # H_m λ, shape (N, P)
    products = at.gradients @ twisted.T  # [n, m] = g_n·H_m λ
    return products - products.T


def exchange_curvature(at: Derivatives, costate: np.ndarray) -> np.ndarray:
    """κ_nm = λ·(H_n - H_m)(g_n - g_m) for all pairs, shape (N, N), symmetric.

    Moving weight δ from m to n at one Euler step and back j steps later changes the
    area ηJ, at second order in δ, by (-η²κ_nm + O(jη³)) δ².
    """
    twisted = at.hessians @ costate
    products = twisted @ at.gradients.T  # [n, m] = H_n λ·g_m
    own = np.diag(products)
    return own[:, None] + own[None, :] - products - products.T


def smooth_policy(size: int, *, horizon: float, seed: int = 0, sharpness: float = 1.0) -> Weights:
    """A smooth random policy t ↦ γ(t), shape (N,), for t in [0, horizon].

    The softmax of random trigonometric polynomials of degree three.

    Raises:
        ValueError: a size below 1, or a horizon that is not positive.
    """
    if size < 1 or not horizon > 0:
        raise ValueError(
            f"expected size ≥ 1 and a positive horizon, got size {size}, horizon {horizon}"
        )
    rng = np.random.default_rng(seed)
    amplitude = sharpness * rng.normal(size=(3, size))
    phase = rng.uniform(0, 2 * np.pi, size=(3, size))
    wave = np.pi * np.arange(1, 4)[:, None] / horizon

    def weights(t: float) -> np.ndarray:
        score = (amplitude * np.sin(wave * t + phase)).sum(0)
        score = np.exp(score - score.max())
        return score / score.sum()

    return weights


def sample(policy: Weights, *, steps: int, learning_rate: float) -> torch.Tensor:
    """The policy at t·η for t = 0..T-1 as Euler's method uses it, shape (T, N).

    Raises:
        ValueError: fewer than one step, or η ≤ 0.
    """
    if steps < 1 or not learning_rate > 0:
        raise ValueError(f"expected steps ≥ 1 and η > 0, got {steps} and {learning_rate}")
    rows = np.stack([policy(t * learning_rate) for t in range(steps)])
    return torch.from_numpy(rows / rows.sum(1, keepdims=True))


class Flow(NamedTuple):
    """A gradient flow, its area and its costate; functions of time.

    Attributes:
        theta: t ↦ θ(t), shape (P,).
        costate: t ↦ λ(t), shape (P,).
        area: ∫_0^T L_dsr(θ(t)) dt (Eq. 4), nats times time.
    """

    theta: Callable[[float], np.ndarray]
    costate: Callable[[float], np.ndarray]
    area: float


def gradient_flow(task: Task, policy: Weights, *, horizon: float, tolerance: float = 1e-12) -> Flow:
    """Solve Eq. 3 forwards and the costate backwards with DOP853 (order 8).

    Args:
        task: a task of few parameters.
        policy: t ↦ γ(t), shape (N,).
        horizon: T, in time units (ηT for T Euler steps).
        tolerance: relative tolerance; the absolute one is a hundredth of it.

    Raises:
        ValueError: a horizon or tolerance that is not positive, or a policy that
            does not return N weights.
        RuntimeError: the solver gave up; its message is passed on.
    """
    if not (horizon > 0 and tolerance > 0):
        raise ValueError(f"horizon and tolerance must be positive, got {horizon} and {tolerance}")
    width = task.initial.numel()
    shape = np.shape(policy(0.0))
    if shape != (task.size,):
        raise ValueError(f"the policy must return shape ({task.size},), got {shape}")
    options = {"method": "DOP853", "rtol": tolerance, "atol": tolerance / 100, "dense_output": True}

    def forward(t: float, state: np.ndarray) -> np.ndarray:
        at = derivatives(task, state[:width])
        return np.append(-policy(t) @ at.gradients, at.desired_loss)

    start = np.append(task.initial.double().numpy(), 0.0)
    there = solve_ivp(forward, (0.0, horizon), start, **options)
    if not there.success:
        raise RuntimeError(f"the gradient flow was not solved: {there.message}")

    def backward(t: float, costate: np.ndarray) -> np.ndarray:
        at = derivatives(task, there.sol(t)[:width])
        return -at.desired_gradient + np.tensordot(policy(t), at.hessians, 1) @ costate

    back = solve_ivp(backward, (horizon, 0.0), np.zeros(width), **options)
    if not back.success:
        raise RuntimeError(f"the costate was not solved: {back.message}")
    return Flow(lambda t: there.sol(t)[:width], back.sol, float(there.y[width, -1]))


class Identity(NamedTuple):
    """The terms of CT_n = -d/dt(λ·g_n) + Σ_m γ_m λ·(H_m g_n - H_n g_m), each (S, N).

    Attributes:
        times: where they are taken, shape (S,).
        contribution: CT_n.
        future: λ·g_n.
        drift: -d/dt(λ·g_n), by numerical differentiation of ``future``.
        bracket: the sum over m.
        weights: γ.
        speed: -dL_dsr/dt = -G·θ', shape (S,).
    """

    times: np.ndarray
    contribution: np.ndarray
    future: np.ndarray
    drift: np.ndarray
    bracket: np.ndarray
    weights: np.ndarray
    speed: np.ndarray

    @property
    def error(self) -> float:
        """Largest |CT - drift - bracket| over the largest |CT|."""
        rest = self.contribution - self.drift - self.bracket
        return float(np.abs(rest).max() / np.abs(self.contribution).max())


def _terms(
    task: Task, theta: np.ndarray, costate: np.ndarray, weights: np.ndarray
) -> tuple[Any, ...]:
    at = derivatives(task, theta)
    return (
        at.gradients @ at.desired_gradient,
        at.gradients @ costate,
        brackets(at, costate) @ weights,
        at.desired_gradient @ (weights @ at.gradients),
    )


def flow_identity(
    task: Task, policy: Weights, flow: Flow, *, horizon: float, nodes: int = 65
) -> Identity:
    """The identity along a gradient flow, at Chebyshev points of [0, T].

    d/dt(λ·g_n) comes from differentiating the polynomial through the values of
    λ·g_n at the nodes, with no use of the differential equations.

    Raises:
        ValueError: fewer than 3 nodes.
    """
    if nodes < 3:
        raise ValueError(f"nodes must be at least 3, got {nodes}")
    cosines = np.cos(np.pi * np.arange(nodes) / (nodes - 1))
    times = horizon * (1 - cosines) / 2
    weights = np.stack([policy(t) for t in times])
    rows = [
        _terms(task, flow.theta(t), flow.costate(t), w) for t, w in zip(times, weights, strict=True)
    ]
    contribution, future, bracket, speed = (np.stack(part) for part in zip(*rows, strict=True))
    slope = _chebyshev_derivative(nodes) @ future * (-2 / horizon)
    return Identity(times, contribution, future, -slope, bracket, weights, speed)


def _chebyshev_derivative(nodes: int) -> np.ndarray:
    """Differentiation matrix at cos(πk/(n-1)) (Trefethen, Spectral Methods, ch. 6)."""
    x = np.cos(np.pi * np.arange(nodes) / (nodes - 1))
    scale = np.ones(nodes)
    scale[[0, -1]] = 2
    scale *= (-1.0) ** np.arange(nodes)
    gap = x[:, None] - x[None, :] + np.eye(nodes)
    matrix = np.outer(scale, 1 / scale) / gap
    return matrix - np.diag(matrix.sum(1))


def euler_identity(task: Task, policy: torch.Tensor, trajectory: torch.Tensor) -> Identity:
    """The same terms along Euler's method, with the discrete costate times η.

    -d/dt(λ·g_n) becomes the forward difference of ηλ_{t+1}·g_n(θ_t) over η, so
    the identity holds up to O(η). Times t·η for t = 0..T-2.

    Args:
        task: a task of few parameters.
        policy: γ, shape (T, N), T ≥ 2.
        trajectory: θ_0 … θ_T, shape (T + 1, P).

    Raises:
        ValueError: shapes that do not fit.
    """
    if policy.ndim != 2 or len(policy) < 2 or len(trajectory) != len(policy) + 1:
        raise ValueError(
            "expected a policy (T, N) with T ≥ 2 and a trajectory (T + 1, P), "
            f"got {tuple(policy.shape)} and {tuple(trajectory.shape)}"
        )
    eta = task.learning_rate
    states, weights = trajectory.double().numpy(), policy.double().numpy()
    costate = derivatives(task, states[-1]).desired_gradient
    rows = []
    for t in range(len(weights) - 1, -1, -1):
        rows.append(_terms(task, states[t], eta * costate, weights[t]))
        at = derivatives(task, states[t])
        curvature = np.tensordot(weights[t], at.hessians, 1)
        costate = at.desired_gradient + costate - eta * curvature @ costate
    rows.reverse()
    contribution, future, bracket, speed = (np.stack(part) for part in zip(*rows, strict=True))
    times = eta * np.arange(len(weights) - 1)
    drift = -np.diff(future, axis=0) / eta
    return Identity(
        times, contribution[:-1], future[:-1], drift, bracket[:-1], weights[:-1], speed[:-1]
    )
