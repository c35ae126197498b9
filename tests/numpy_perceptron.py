"""A perceptron, its training and its policy gradient in NumPy loops: nothing shared with llbook.

The gradient comes from forward sensitivities, dθ_t/dγ_{n,s}, instead of a costate.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def train(inputs, labels, initial, eta, policy):
    """θ_0 … θ_T for labels in {-1, +1} turned into targets in {0, 1}."""
    targets = (labels + 1) / 2
    path = [initial.copy()]
    for weights in policy:
        error = sigmoid(inputs @ path[-1]) - targets
        path.append(path[-1] - eta * sum(w * e * z for w, e, z in zip(weights, error, inputs)))
    return np.array(path)


def mean_loss(inputs, labels, theta):
    outputs = sigmoid(inputs @ theta)
    targets = (labels + 1) / 2
    return float(-np.mean(targets * np.log(outputs) + (1 - targets) * np.log(1 - outputs)))


def policy_gradient(inputs, labels, desired_inputs, desired_labels, initial, eta, policy):
    """∂/∂γ of Σ_{t=1..T} of the desired loss, shape (T, N)."""
    path = train(inputs, labels, initial, eta, policy)
    steps, size = policy.shape
    targets, desired_targets = (labels + 1) / 2, (desired_labels + 1) / 2
    sensitivity = np.zeros((steps, size, len(initial)))
    gradient = np.zeros((steps, size))
    for t in range(steps):
        outputs = sigmoid(inputs @ path[t])
        curvature = policy[t] * outputs * (1 - outputs)
        hessian = np.einsum("n,ni,nj->ij", curvature, inputs, inputs)
        sensitivity = sensitivity @ (np.eye(len(initial)) - eta * hessian)
        sensitivity[t] += -eta * (outputs - targets)[:, None] * inputs
        slope = np.mean(
            (sigmoid(desired_inputs @ path[t + 1]) - desired_targets)[:, None] * desired_inputs,
            axis=0,
        )
        gradient += sensitivity @ slope
    return gradient
