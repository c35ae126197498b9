"""Parameters of the theory's notebooks."""

from __future__ import annotations

from pydantic import Field

from llbook.parameters import Parameters

__all__ = [
    "FirstOrderPointsConfig",
    "GradientFlowConfig",
    "MaximumPrincipleConfig",
    "SharedArcsConfig",
    "SingularArcsConfig",
    "SmallStepsConfig",
]


class GradientFlowConfig(Parameters):
    """The chapter on the gradient flow; the defaults are those of `laptop`."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data, θ_0 and policy")
    size: int = Field(7, ge=2, le=256, description="N, training examples")
    dimension: int = Field(5, ge=1, le=64, description="D, inputs of the perceptron")
    desired_size: int = Field(64, ge=1, le=2**16, description="K, desired examples")
    horizon: float = Field(5.0, gt=0, le=1e3, description="ηT, time units")
    coarsest: int = Field(10, ge=2, le=10**4, description="steps of the coarsest training")
    halvings: int = Field(7, ge=2, le=14, description="how often η is halved")


class MaximumPrincipleConfig(Parameters):
    """The chapter on the maximum principle; the defaults are those of `laptop`."""

    seed: int = Field(1, ge=0, lt=2**31, description="seed of data and θ_0")
    size: int = Field(
        12, ge=2, le=64, description="N, examples of the perceptron whose budget is free"
    )
    dimension: int = Field(4, ge=1, le=16, description="D, inputs of the perceptrons")
    desired_size: int = Field(256, ge=1, le=2**16, description="K, desired examples")
    label_noise: float = Field(0.2, ge=0, le=0.5, description="share of training labels flipped")
    horizon: float = Field(10.0, gt=0, le=100, description="T of the flow whose budget is free")
    intervals: int = Field(40, ge=4, le=600, description="M, intervals of its policy")
    removals: int = Field(
        60, ge=4, le=1000, description="N, examples of which each is left out once"
    )


class SingularArcsConfig(Parameters):
    """The chapter on the law's remainder; the defaults are those of `laptop`."""

    intervals: int = Field(60, ge=12, le=240, multiple_of=2, description="M, intervals of a policy")
    iterations: int = Field(6000, ge=1, le=10**6, description="gradients a solution may cost")


class SharedArcsConfig(SingularArcsConfig):
    """The chapter on shared arcs."""

    finest: int = Field(64, ge=8, le=256, description="pieces of an interval for rotations")


class _SmallPerceptron(Parameters):
    """A perceptron small enough to be solved."""

    seed: int = Field(1, ge=0, lt=2**31, description="seed of data and θ_0")
    size: int = Field(12, ge=2, le=64, description="N, training examples")
    dimension: int = Field(4, ge=1, le=16, description="D, inputs of the perceptron")
    desired_size: int = Field(256, ge=1, le=2**16, description="K, desired examples")
    label_noise: float = Field(0.2, ge=0, le=0.5, description="share of training labels flipped")
    steps: int = Field(100, ge=4, le=2000, description="T, Euler steps of the perceptron")
    learning_rate: float = Field(0.1, gt=0, le=10, description="η")
    iterations: int = Field(6000, ge=1, le=10**6, description="gradients a solution may cost")


class SmallStepsConfig(_SmallPerceptron):
    """The chapter on steps and the flow; the defaults are those of `laptop`."""

    # the page begins with half of them, in ten windows of equal length
    intervals: int = Field(
        60, ge=20, le=240, multiple_of=20, description="M, intervals of the commuting task"
    )
    halvings: int = Field(3, ge=1, le=4, description="how often η is halved in it")


class FirstOrderPointsConfig(_SmallPerceptron):
    """The chapter on first-order points; the defaults are those of `laptop`."""

    starts: int = Field(10, ge=1, le=1000, description="random policies to start from")
