import dataclasses

import pytest
import torch

from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.tasks.language import Transformer
from llbook.tasks.transformer import (
    PAD,
    Architecture,
    Prefix,
    initial_parameters,
    logits,
    parameter_count,
    token_losses,
)

# torch's own, on the first forward-mode derivative of a process
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

TINY = Architecture(vocabulary=7, context=5, layers=2, hidden=8, heads=2, initial_scale=0.3)


def _tokens(count: int, length: int = 6, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, TINY.vocabulary, (count, length), generator=generator)


@pytest.fixture
def task() -> Transformer:
    training = _tokens(5, seed=1)
    training[0, 4:] = PAD
    training[3, 2:] = PAD
    return Transformer(
        TINY,
        training,
        _tokens(4, seed=2),
        _tokens(4, seed=3),
        initial=initial_parameters(TINY, seed=4, dtype=torch.float64),
        learning_rate=0.2,
    )


def test_the_papers_model_has_1682688_parameters():
    assert parameter_count(Architecture()) == 1_682_688
    assert initial_parameters(Architecture(), seed=0).shape == (1_682_688,)


@pytest.mark.parametrize(("scale", "activation"), [("head", "relu"), ("hidden", "gelu")])
def test_logits_against_torch_modules(scale, activation):
    """An independent build from torch.nn gives the same scores."""
    arch = Architecture(
        vocabulary=7,
        context=5,
        layers=1,
        hidden=8,
        heads=2,
        activation=activation,
        attention_scale=scale,
        initial_scale=0.5,
    )
    theta = initial_parameters(arch, seed=0, dtype=torch.float64)
    # gains and biases that are not trivial
    theta = theta + 0.1 * torch.randn(
        theta.shape, generator=torch.Generator().manual_seed(9), dtype=theta.dtype
    )
    arrays, at = {}, 0
    for name, shape in arch.shapes().items():
        size = torch.Size(shape).numel()
        arrays[name] = theta[at : at + size].view(shape)
        at += size

    def norm(x, pair):
        return torch.nn.functional.rms_norm(x, (8,), pair[0], 1e-6) + pair[1]

    tokens = _tokens(3, 5, seed=5)
    x = arrays["tokens"][tokens] + arrays["positions"]
    y = norm(x, arrays["0.attention.norm"]) @ arrays["0.attention.in"]
    q, k, v = (a.unflatten(-1, (2, 4)).transpose(1, 2) for a in y.chunk(3, -1))
    mixed = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=(4 if scale == "head" else 8) ** -0.5
    )
    x = x + mixed.transpose(1, 2).flatten(2) @ arrays["0.attention.out"]
    y = norm(x, arrays["0.feedforward.norm"]) @ arrays["0.feedforward.in"]
    x = x + getattr(torch.nn.functional, activation)(y) @ arrays["0.feedforward.out"]
    expected = norm(x, arrays["norm"]) @ arrays["out"]
    torch.testing.assert_close(logits(arch, theta, tokens), expected, rtol=1e-12, atol=1e-12)


def test_a_later_token_leaves_earlier_scores_unchanged(task):
    tokens = _tokens(3, 5, seed=6)
    other = tokens.clone()
    other[:, 3] = (other[:, 3] + 1) % TINY.vocabulary
    before, after = logits(TINY, task.initial, tokens), logits(TINY, task.initial, other)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_reading_one_token_at_a_time_gives_the_same_scores(task):
    tokens = _tokens(3, 5, seed=7)
    prefix = Prefix()
    pieces = [logits(TINY, task.initial, tokens[:, i : i + 1], prefix) for i in range(5)]
    whole = logits(TINY, task.initial, tokens)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="5 read before"):
        logits(TINY, task.initial, tokens[:, :1], prefix)


def test_losses_are_means_over_the_predicted_positions(task):
    losses = task.losses(task.initial, task.training)
    row = task.training[0, :4]  # the rest is padding
    scores = logits(TINY, task.initial, row[None, :3])[0]
    expected = torch.nn.functional.cross_entropy(scores, row[1:])
    torch.testing.assert_close(losses[0], expected, rtol=1e-12, atol=0)
    each = token_losses(scores[None], row[None, 1:])
    torch.testing.assert_close(each.mean(), expected, rtol=1e-12, atol=0)


def test_either_activation_has_the_gradient_of_small_differences():
    """With GELU, which has all derivatives, their error is of second order in the step."""
    errors = {}
    for activation in ("relu", "gelu"):
        arch = dataclasses.replace(TINY, activation=activation, initial_scale=0.3)
        sets = (_tokens(5, 6, seed=s) for s in (1, 2, 3))
        initial = initial_parameters(arch, seed=4, dtype=torch.float64)
        task = Transformer(arch, *sets, initial=initial, learning_rate=0.5)
        policy = constant_policy(task, 6)
        process = train(task, policy)
        gradient = policy_gradient(task, policy, process)
        unrolled = policy_gradient(task, policy, process, strategy="unrolled")
        torch.testing.assert_close(gradient, unrolled, rtol=1e-9, atol=1e-12)

        def area(policy, task=task):
            trajectory = train(task, policy).trajectory
            return float(task.trajectory_losses(trajectory, task.desired)[1:].sum())

        slope = gradient - gradient.mean(1, keepdim=True)  # keeps the sums of the rows
        slope /= slope.abs().max()
        for step in (1e-5, 1e-6):
            measured = (area(policy + step * slope) - area(policy - step * slope)) / (2 * step)
            expected = float((gradient * slope).sum())
            errors[activation, step] = abs(measured / expected - 1)
    assert errors["relu", 1e-6] < 1e-6
    assert errors["gelu", 1e-6] < 1e-5
    assert errors["gelu", 1e-5] / errors["gelu", 1e-6] == pytest.approx(100, rel=0.1)


def test_adjoints_agree(task):
    policy = constant_policy(task, 4)
    policy[1] = torch.tensor([0.5, 0.1, 0.0, 0.3, 0.1], dtype=torch.float64)
    process = train(task, policy)
    ours = policy_gradient(task, policy, process, strategy="reverse-over-forward")
    oracle = policy_gradient(task, policy, process, strategy="unrolled")
    assert float((ours - oracle).norm() / oracle.norm()) < 1e-9
    assert float(oracle.norm()) > 1e-3


def test_the_gradient_against_central_differences(task):
    policy = constant_policy(task, 3)
    gradient = policy_gradient(task, policy, train(task, policy))

    def area(weights: torch.Tensor) -> float:
        theta, total = task.initial, 0.0
        for row in weights:
            theta = theta - task.learning_rate * task.gradient(theta, row)
            total += float(task.mean_loss(theta, task.desired))
        return total

    for t, n in ((0, 0), (1, 3), (2, 4)):
        step = torch.zeros_like(policy)
        step[t, n] = 1e-5
        slope = (area(policy + step) - area(policy - step)) / 2e-5
        assert slope == pytest.approx(float(gradient[t, n]), rel=1e-6)


def test_training_lowers_the_loss(task):
    process = train(task, constant_policy(task, 30))
    curve = task.trajectory_losses(process.trajectory, task.training)
    assert float(curve[-1]) < 0.9 * float(curve[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vocabulary": 1}, ValueError, "vocabulary must be at least 2, got 1"),
        ({"layers": 0}, ValueError, "layers must be at least 1, got 0"),
        ({"hidden": 10, "heads": 4}, ValueError, "got 4 heads for 10"),
        ({"hidden": 8.0}, TypeError, "hidden must be an integer, got 8.0"),
        ({"attention_scale": "none"}, ValueError, "'head' or 'hidden', got 'none'"),
        ({"initial_scale": 0.0}, ValueError, "positive, got 0.0"),
    ],
)
def test_a_bad_architecture_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Architecture(**change)


def test_bad_tokens_and_parameters_are_refused(task):
    good, theta = _tokens(2, seed=8), task.initial
    late_padding = good.clone()
    late_padding[0, 2] = PAD
    empty = good.clone()
    empty[1, 1:] = PAD
    for bad, error, message in (
        (good.int(), TypeError, "must be int64, got torch.int32"),
        (good[0], ValueError, r"shape \(n, L\)"),
        (good[:, :1], ValueError, "2 ≤ L ≤ 6"),
        (good + 7, ValueError, r"must lie in \[0, 7\)"),
        (late_padding, ValueError, "padding before a token"),
        (empty, ValueError, "training example 1 has fewer than two tokens"),
    ):
        with pytest.raises(error, match=message):
            Transformer(TINY, bad, good, good, initial=theta)
    with pytest.raises(ValueError, match="θ_0 must have shape"):
        Transformer(TINY, good, good, good, initial=theta[1:])
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        Transformer(TINY, good, good, good, initial=theta, learning_rate=0)
    with pytest.raises(ValueError, match="θ must have shape"):
        logits(TINY, theta[1:], good)
    with pytest.raises(ValueError, match="1 ≤ L ≤ 5"):
        logits(TINY, theta, good)
