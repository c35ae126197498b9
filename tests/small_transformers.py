"""Small Transformers in pairs, by a kernel and by operators, for tests."""

import torch

from llbook.tasks.language import Transformer
from llbook.tasks.transformer import PAD, Architecture, initial_parameters

ARCHITECTURES = {
    "one layer, one head": Architecture(20, 8, 1, 8, 1, initial_scale=0.3),
    "odd sizes": Architecture(23, 20, 3, 12, 4, 3, initial_scale=0.3),
    "gelu": Architecture(20, 20, 2, 16, 2, activation="gelu", initial_scale=0.3),
    "scale": Architecture(20, 40, 1, 20, 4, attention_scale="hidden", initial_scale=0.3),
    "nothing but a token": Architecture(3, 1, 1, 1, 1, 1, initial_scale=0.5),
    "scores in pieces": Architecture(3000, 40, 1, 8, 2, initial_scale=0.3),
}


def pair(architecture, dtype=torch.float64, count=11):
    """One task by the kernel and by operators, weights with zeros, a direction."""
    generator = torch.Generator().manual_seed(1)

    def draw(count):
        return torch.randint(
            0, architecture.vocabulary, (count, architecture.context + 1), generator=generator
        )

    training = draw(count)
    if architecture.context > 2:
        training[0, 3:] = PAD
        training[4, 2:] = PAD
    initial = initial_parameters(architecture, 2, dtype=torch.float64)
    # gains and biases that are not trivial
    initial = initial + 0.1 * torch.randn(initial.shape, generator=generator).double()
    weights = torch.rand(count, generator=generator).double()
    weights[[0, 7]] = 0
    direction = torch.randn(initial.shape, generator=generator).double()
    sets = training, draw(3), draw(2)
    tasks = [
        Transformer(
            architecture, *sets, initial=initial.to(dtype), learning_rate=0.1, kernel=kernel
        )
        for kernel in ("window", "operators")
    ]
    return *tasks, weights.to(dtype), direction.to(dtype)


def results(task, weights, direction):
    theta = task.initial
    return {
        "gradient": task.gradient(theta, weights),
        "mean": task.mean_gradient(theta, task.training)[0],
        "mean gradient": task.mean_gradient(theta, task.training)[1],
        "tangents": task.directional_derivatives(theta, direction),
        "products": task.costate_products(theta, weights, direction)[0],
        "curvature": task.costate_products(theta, weights, direction)[1],
        "losses": task.trajectory_losses([theta, theta + 0.01 * direction], task.desired),
    }


def close(got, expected, most):
    for name, value in got.items():
        assert float((value - expected[name]).norm() / expected[name].norm()) < most, name
