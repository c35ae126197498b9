"""Small tasks and policies for tests of the engine."""

import torch

from llbook.data.teacher import teacher_data
from llbook.optimal.simplex import project
from llbook.tasks.perceptron import Perceptron, initial_parameters
from llbook.tasks.task import Task


def perceptron(dtype=torch.float64, *, size=31, dimension=5, desired_size=20, eta=0.1):
    data = teacher_data(size=size, desired_size=desired_size, dimension=dimension, dtype=dtype)
    initial = initial_parameters("normal", dimension, dtype=dtype)
    return (
        Perceptron(data.training, data.desired, data.test, initial=initial, learning_rate=eta),
        data,
    )


def random_policy(task, steps, *, spread=0.05):
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(steps, task.size, generator=generator, dtype=torch.float64) * spread
    return project(noise.to(task.initial.dtype))


class Quadratic(Task):
    """l_n = ½ (θ - c_n)ᵀ A_n (θ - c_n) + (q_n·θ)⁴/4: a task with no closed form here."""

    vocabulary = 2

    def __init__(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(3)

        def examples(count):
            root = torch.randn(count, 4, 4, generator=generator, dtype=dtype) / 2
            centre = torch.randn(count, 4, generator=generator, dtype=dtype)
            return torch.cat([(root @ root.mT).flatten(1), centre], 1)

        self.training, self.desired, self.test = examples(9), examples(5), examples(5)
        self.initial = torch.randn(4, generator=generator, dtype=dtype)
        self.learning_rate = 0.05

    def losses(self, theta, examples):
        matrix, centre = examples[:, :16].unflatten(1, (4, 4)), examples[:, 16:]
        offset = theta - centre
        return torch.einsum("ni,nij,nj->n", offset, matrix, offset) / 2 + (centre @ theta) ** 4 / 4


def relative(a, b):
    return float((a - b).norm() / b.norm())
