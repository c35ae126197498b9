"""Other optimisers, rates and batches: the training, its exact gradient, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_tasks import Quadratic, perceptron, random_policy, relative

from llbook.measures.law import contributions, preconditioned_contributions, similarity
from llbook.optimal.adjoint import gradient_and_losses, policy_gradient
from llbook.optimal.checkpoint import load_checkpoint
from llbook.optimal.inner import BATCHES, OPTIMIZERS, PLAIN, RATE_SCHEDULES, Inner
from llbook.optimal.process import TRAJECTORIES, constant_policy, train
from llbook.optimal.search import search
from llbook.optimal.starts import greedy, static
from llbook.tasks.language import Transformer
from llbook.tasks.least_squares import tilted
from llbook.tasks.transformer import Architecture, initial_parameters

# torch's own, on the first forward-mode derivative of a process
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

STEPS = 9
EXPLICIT = (0.5, 1.0, 2.0, 0.0, 1.0, 0.25, 1.0, 1.5, 1.0)
OTHERS = {
    "plain": {},
    "batches": {"batch": 4, "seed": 3},
    "decay, warm-up, linear": {"weight_decay": 0.1, "warmup": 3, "schedule": "linear"},
    "decay, batches, cosine": {"weight_decay": 0.05, "batch": 3, "schedule": "cosine"},
    "explicit": {"schedule": EXPLICIT, "momentum": 0.5, "beta1": 0.0, "beta2": 0.5},
}


def transformer(activation="gelu"):
    shape = Architecture(
        vocabulary=5,
        context=6,
        layers=1,
        hidden=8,
        heads=2,
        initial_scale=0.3,
        activation=activation,
    )
    generator = torch.Generator().manual_seed(1)

    def tokens(count):
        # every example has every token, so that no gradient is exactly zero
        once = torch.rand(count, 5, generator=generator).argsort(1)
        return torch.cat([once, torch.randint(0, 5, (count, 2), generator=generator)], 1)

    sets = map(tokens, (9, 5, 5))
    initial = initial_parameters(shape, 4, dtype=torch.float64)
    return Transformer(shape, *sets, initial=initial, learning_rate=0.05)


def least_squares():
    return tilted(*np.random.default_rng(0).uniform(0.5, 1.5, (3, 6)), coupling=0.3)


TASKS = {
    "perceptron": lambda: perceptron(size=13)[0],
    "quadratic": Quadratic,
    "transformer": transformer,
}


def factors(inner, steps):
    """η_t/η, written down anew."""
    if not isinstance(inner.schedule, str):
        found = list(inner.schedule)
    else:
        found = []
        for t in range(steps):
            x = max(0, t - inner.warmup) / (steps - inner.warmup)
            found.append(
                {"constant": 1.0, "linear": 1 - x, "cosine": 0.5 + math.cos(math.pi * x) / 2}[
                    inner.schedule
                ]
            )
    return [f * min(1, (t + 1) / inner.warmup) if inner.warmup else f for t, f in enumerate(found)]


def weights_of(row, batch, size):
    """(N/B) γ on the batch, zero elsewhere."""
    if batch is None:
        return row
    mask = torch.zeros(size, dtype=row.dtype)
    mask[batch] = size / len(batch)
    return row * mask


def objective(task, policy, process):
    """J by textbook formulas, for automatic differentiation."""
    inner, theta = process.inner, task.initial.clone().requires_grad_(True)
    first, second, total = torch.zeros_like(theta), torch.zeros_like(theta), 0
    for t, f in enumerate(factors(inner, len(policy))):
        eta = task.learning_rate * f
        batch = None if process.batches is None else process.batches[t]
        loss = weights_of(policy[t], batch, task.size) @ task.losses(theta, task.training)
        if inner.optimizer != "adamw":
            loss = loss + inner.weight_decay / 2 * theta @ theta
        (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
        if inner.optimizer in ("momentum", "nesterov"):
            first = inner.momentum * first + slope
            move = slope + inner.momentum * first if inner.optimizer == "nesterov" else first
        elif inner.optimizer in ("adam", "adamw"):
            first = inner.beta1 * first + (1 - inner.beta1) * slope
            second = inner.beta2 * second + (1 - inner.beta2) * slope * slope
            mean = first / (1 - inner.beta1 ** (t + 1))
            move = mean / (torch.sqrt(second / (1 - inner.beta2 ** (t + 1))) + inner.epsilon)
        else:
            move = slope
        if inner.optimizer == "adamw":
            theta = theta - eta * inner.weight_decay * theta
        theta = theta - eta * move
        total = total + task.mean_loss(theta, task.desired)
    return total


def by_torch(task, policy, process):
    """θ_0 … θ_T by the optimisers of torch.optim."""
    inner = process.inner
    theta = torch.nn.Parameter(task.initial.clone())
    decay = {"weight_decay": inner.weight_decay}
    betas = {"betas": (inner.beta1, inner.beta2), "eps": inner.epsilon}
    mu = {"momentum": inner.momentum, "nesterov": inner.optimizer == "nesterov"}
    optimizer = {
        "gradient-descent": lambda: torch.optim.SGD([theta], lr=1.0, **decay),
        "momentum": lambda: torch.optim.SGD([theta], lr=1.0, **mu, **decay),
        "nesterov": lambda: torch.optim.SGD([theta], lr=1.0, **mu, **decay),
        "adam": lambda: torch.optim.Adam([theta], lr=1.0, **betas, **decay),
        "adamw": lambda: torch.optim.AdamW([theta], lr=1.0, **betas, **decay),
    }[inner.optimizer]()
    states = [task.initial]
    for t, f in enumerate(factors(inner, len(policy))):
        batch = None if process.batches is None else process.batches[t]
        optimizer.param_groups[0]["lr"] = task.learning_rate * f
        theta.grad = task.gradient(theta.detach(), weights_of(policy[t], batch, task.size))
        optimizer.step()
        states.append(theta.detach().clone())
    return torch.stack(states)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("others", OTHERS)
def test_training_and_gradient_against_torch(kind, optimizer, others):
    task, inner = TASKS[kind](), Inner(optimizer, **OTHERS[others])
    policy = random_policy(task, STEPS, spread=0.1)
    process = train(task, policy, inner=inner)
    assert relative(process.trajectory, by_torch(task, policy, process)) < 1e-12
    free = policy.clone().requires_grad_(True)
    value = objective(task, free, process)
    (expected,) = torch.autograd.grad(value, free)
    for strategy in ("reverse-over-forward", "unrolled"):
        gradient, losses = gradient_and_losses(task, policy, process, strategy=strategy)
        assert relative(gradient, expected) < 1e-12, strategy
        assert float(losses.sum()) == pytest.approx(float(value.detach()), rel=1e-12)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradient_against_central_differences(kind, optimizer):
    """On a line through the policy: the derivative along it, and along each of a few rows."""
    task = TASKS[kind]()
    inner = Inner(optimizer, weight_decay=0.03, schedule="cosine", warmup=2, batch=4)
    policy = random_policy(task, STEPS, spread=0.02)
    process = train(task, policy, inner=inner)
    gradient = policy_gradient(task, policy, process)
    generator = torch.Generator().manual_seed(5)
    h, numeric, exact = 5e-7, [], []  # Adam bends where a gradient changes its sign
    for _ in range(12):
        along = torch.randn(policy.shape, generator=generator, dtype=policy.dtype)
        up, down = (objective(task, policy + s * h * along, process).detach() for s in (1, -1))
        numeric.append(float(up - down) / (2 * h))
        exact.append(float((gradient * along).sum()))
    assert relative(torch.tensor(numeric), torch.tensor(exact)) < 1e-6


def test_the_paper_is_gradient_descent_on_the_full_batch():
    """Its own kernels, and the same numbers by the general way."""
    task = perceptron(torch.float32, size=40)[0]
    policy = random_policy(task, STEPS)
    usual = train(task, policy)
    assert usual.inner is PLAIN and PLAIN.plain and usual.buffers is None
    assert torch.equal(train(task, policy, inner=Inner(beta1=0.5)).trajectory, usual.trajectory)
    ones = Inner(schedule=(1.0,) * STEPS)
    assert not ones.plain
    general = train(task, policy, inner=ones)
    assert relative(general.trajectory, usual.trajectory) < 1e-6
    found = policy_gradient(task, policy, general)
    assert relative(found, policy_gradient(task, policy, usual)) < 1e-5
    with pytest.raises(ValueError, match="no closed form .* for this optimiser"):
        policy_gradient(task, policy, general, strategy="closed-form")
    # with nothing compiled, bit for bit
    task = Quadratic()
    policy = random_policy(task, STEPS)
    usual, general = train(task, policy), train(task, policy, inner=ones)
    assert torch.equal(usual.trajectory, general.trajectory)
    assert torch.equal(policy_gradient(task, policy, usual), policy_gradient(task, policy, general))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 2, STEPS, 16])
def test_every_form_of_memory_gives_the_same_bits(optimizer, steps):
    task = transformer("relu")
    policy = random_policy(task, steps)
    inner = Inner(optimizer, batch=4, schedule="linear", warmup=1, weight_decay=0.1)
    found = []
    for place in TRAJECTORIES:
        process = train(task, policy, inner=inner, trajectory=place)
        held = [
            [part[t].clone() for t in range(steps + 1)]
            for part in (process.trajectory, process.buffers)
            if part is not None
        ]
        assert len(held) == 1 + (optimizer != "gradient-descent")
        found.append((held, policy_gradient(task, policy, process)))
    for held, gradient in found[1:]:
        assert torch.equal(gradient, found[0][1])
        for mine, first in zip(held, found[0][0], strict=True):
            assert all(map(torch.equal, mine, first))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_gradient_that_is_zero_so_far(optimizer):
    """Automatic differentiation has no number for it; ours is the derivative, on the scale of ε."""
    task = Quadratic()
    # the last parameter concerns no loss: neither does what is kept for it move
    for examples in (task.training, task.desired):
        matrix, centre = examples[:, :16].view(-1, 4, 4), examples[:, 16:]
        matrix[:, 3], matrix[:, :, 3], centre[:, 3] = 0, 0, 0
    # and of the third one but a single example, which has no weight for two steps
    others = task.training[1:]
    matrix, centre = others[:, :16].view(-1, 4, 4), others[:, 16:]
    matrix[:, 2], matrix[:, :, 2], centre[:, 2] = 0, 0, 0
    policy = random_policy(task, STEPS)
    policy[:2, 0] = 0
    policy /= policy.sum(1, keepdim=True)
    inner = Inner(optimizer, epsilon=0.1)
    process = train(task, policy, inner=inner)
    buffers = process.buffers.view(STEPS + 1, 3, 4)
    assert (buffers[:, 1, 3] == 0).all() and (buffers[2, 1, 2] == 0) and (buffers[3, 1, 2] > 0)
    assert not policy_gradient(task, policy, process, strategy="unrolled").isfinite().all()
    gradient = policy_gradient(task, policy, process)
    assert gradient.isfinite().all() and (gradient[:2, 0] != 0).all()

    def value(weights):
        return float(objective(task, weights, process).detach())

    h, numeric = 1e-5, torch.zeros_like(policy)
    for t in range(STEPS):
        for n in range(task.size):
            shift = torch.zeros_like(policy)
            shift[t, n] = h
            numeric[t, n] = (value(policy + shift) - value(policy - shift)) / (2 * h)
    assert relative(numeric, gradient) < 1e-6


@pytest.mark.parametrize("place", TRAJECTORIES)
def test_a_search_with_states_held_anywhere(place):
    """Of a task whose measures are quicker where they are one tensor."""
    task, inner = perceptron(size=20)[0], Inner("adam", batch=5)
    options = {"epochs": 3, "method": "mirror", "start": "equal", "inner": inner}
    usual, found = search(task, 7, **options), search(task, 7, **options, trajectory=place)
    assert torch.equal(found.policy, usual.policy)
    for name in ("auc", "desired_auc", "relative_gap"):
        assert found.history[-1][name] == pytest.approx(usual.history[-1][name], rel=1e-12)
    for measure in (contributions, preconditioned_contributions):
        torch.testing.assert_close(measure(task, found.process), measure(task, usual.process))
    slopes = [
        task.trajectory_gradients(p.trajectory, task.test) for p in (found.process, usual.process)
    ]
    torch.testing.assert_close(*slopes)


def test_rates():
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    theta = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([theta], lr=1.0)
    scheduler, rates = cosine(optimizer, 6), []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert Inner(schedule="cosine").factors(6) == pytest.approx(rates)
    assert Inner(schedule="linear").factors(4) == [1, 0.75, 0.5, 0.25]
    assert Inner(schedule="linear", warmup=2).factors(4) == [0.5, 1, 1, 0.5]
    assert Inner(warmup=4).factors(4) == [0.25, 0.5, 0.75, 1]
    assert Inner(schedule=(2, 1, 0), warmup=2).factors(3) == [1, 1, 0]
    assert all(
        min(Inner(schedule=name, warmup=w).factors(5)) > 0
        for name in RATE_SCHEDULES
        for w in (0, 5)
    )


def test_batches_are_shuffles_of_the_training_set():
    task = perceptron(size=12)[0]
    policy = random_policy(task, 10)
    batches = train(task, policy, inner=Inner(batch=4, seed=1)).batches
    assert batches.shape == (10, 4)
    for first in (0, 3, 6):
        assert sorted(batches[first : first + 3].flatten().tolist()) == list(range(12))
    assert not torch.equal(batches[:3], batches[3:6])
    again, other = (Inner(batch=4, seed=s).batch_examples(task, policy) for s in (1, 2))
    assert torch.equal(batches, again) and not torch.equal(batches, other)
    # what remains of a shuffle is left out
    uneven = Inner(batch=5).batch_examples(task, policy)
    assert all(len(set(uneven[t : t + 2].flatten().tolist())) == 10 for t in range(0, 10, 2))


class _Counted(Quadratic):
    """Says how many examples its losses were asked of."""

    def losses(self, theta, examples):
        self.asked.append(len(examples))
        return super().losses(theta, examples)


@pytest.mark.parametrize("batches", BATCHES)
def test_a_step_is_of_the_examples_of_its_batch(batches):
    task = _Counted()
    task.asked = asked = []
    policy, inner = random_policy(task, 4), Inner(batch=2, batches=batches)
    process = train(task, policy, inner=inner)
    assert asked and set(asked) == {2}
    if batches == "weigh":
        asked.clear()
        gradient = policy_gradient(task, policy, process)
        assert set(asked) == {2, len(task.desired)}
        chosen = torch.zeros_like(policy).scatter_(1, process.batches, 1)
        assert torch.equal(gradient != 0, chosen != 0)


@pytest.mark.parametrize("task", [perceptron()[0], least_squares()], ids=["perceptron", "linear"])
def test_a_task_of_some_examples(task):
    chosen, theta = torch.tensor([1, 0, 1]), task.initial
    weights, direction = torch.tensor([0.5, 2, 0.25]).to(theta), torch.ones_like(theta)
    part, whole = task.restricted(chosen), torch.zeros(task.size).to(theta)
    whole[:2] = torch.tensor([2, 0.75])
    torch.testing.assert_close(part.gradient(theta, weights), task.gradient(theta, whole))
    products, curvature = part.costate_products(theta, weights, direction)
    all_products, all_curvature = task.costate_products(theta, whole, direction)
    torch.testing.assert_close(products, all_products[chosen])
    torch.testing.assert_close(curvature, all_curvature)
    assert task.size > 3 and part.size == 3


def test_weighed_batches_have_the_policy_as_their_mean():
    task = perceptron(size=12)[0]
    row = random_policy(task, 1)[0]
    policy = row.repeat(3, 1)
    # over one shuffle exactly
    inner = Inner(batch=4, seed=7)
    batches = inner.batch_examples(task, policy)
    each = torch.stack([inner.weights(task, row, batch) for batch in batches])
    torch.testing.assert_close(each.mean(0), row, rtol=1e-14, atol=0)
    # over seeds, at any step
    draws = []
    for seed in range(2000):
        inner = Inner(batch=5, seed=seed)
        draws.append(inner.weights(task, row, inner.batch_examples(task, policy)[2]))
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - row).abs() <= 4.5 * error).all()


def test_drawn_batches_train_and_have_no_gradient():
    task = perceptron(size=12)[0]
    policy = random_policy(task, 200, spread=0.3)
    inner = Inner(batch=8, batches="draw")
    process = train(task, policy, inner=inner)
    counts = torch.stack([torch.bincount(b, minlength=12) for b in process.batches])
    assert (counts.sum(1) == 8).all() and (counts[policy == 0] == 0).all()
    weights = inner.weights(task, policy[3], process.batches[3])
    assert torch.equal(weights, counts[3] / 8)
    # 1600 draws against their chances
    chances = 8 * policy.sum(0)
    variance = 8 * (policy * (1 - policy)).sum(0)
    assert ((counts.sum(0) - chances).abs() <= 4.5 * variance.sqrt()).all()
    assert torch.equal(train(task, policy, inner=inner).trajectory, process.trajectory)
    for strategy in ("auto", "reverse-over-forward", "unrolled"):
        with pytest.raises(ValueError, match="piecewise constant in γ.*'weigh', got 'draw'"):
            policy_gradient(task, policy, process, strategy=strategy)
    with pytest.raises(ValueError, match="piecewise constant in γ"):
        search(task, 5, epochs=2, step_size=0.1, inner=inner)


def test_numbers_of_numpy_are_numbers():
    """A checkpoint's identity is JSON."""
    options = {"batch": np.int64(4), "seed": np.int32(3), "weight_decay": np.float32(0.5)}
    inner = Inner(**options)
    assert json.loads(json.dumps(inner.identity())) == {"batch": 4, "seed": 3, "weight_decay": 0.5}
    assert inner == Inner(batch=4, seed=3, weight_decay=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer must be one of .*'adamw'.*, got 'sgd'"),
        ({"batches": "all"}, "batches must be one of .*'draw'.*, got 'all'"),
        ({"schedule": "step"}, "schedule must be one of .*'cosine'.*, got 'step'"),
        ({"schedule": {0.5, 1.0}}, "schedule must be one of .* or T factors"),  # without an order
        ({"schedule": b"ab"}, "schedule must be one of .* or T factors, got b'ab'"),
        ({"schedule": 0.5}, "schedule must be one of .* or T factors, got 0.5"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"beta1": -0.1}, r"beta1 must be in \[0, 1\), got -0.1"),
        ({"beta2": 1.5}, r"beta2 must be in \[0, 1\), got 1.5"),
        ({"beta2": math.nan}, r"beta2 must be in \[0, 1\), got nan"),
        ({"epsilon": 0.0}, "epsilon must be positive and finite, got 0.0"),
        ({"weight_decay": -0.01}, "weight_decay must be at least 0 and finite, got -0.01"),
        ({"warmup": -1}, "warmup must be a whole number of at least 0, got -1"),
        ({"batch": 2.5}, "batch must be a whole number of at least 0, got 2.5"),
        ({"batch": True}, "batch must be a whole number of at least 0, got True"),
        ({"momentum": False}, "momentum must be a number, got False"),
        ({"weight_decay": "0.1"}, "weight_decay must be a number, got '0.1'"),
        ({"epsilon": None}, "epsilon must be a number, got None"),
        ({"batches": "draw"}, "batch must be at least 1 where batches are drawn, got 0"),
        ({"schedule": (1.0, -1.0)}, "factors of a schedule must be at least 0.*got -1.0 at step 1"),
        ({"batch": 14}, r"batch must be at most N = 13 examples.*got 14"),
        ({"warmup": 6}, "warmup must be at most T = 5 steps, got 6"),
        ({"schedule": (1.0,) * 4}, "a factor for each of T = 5 steps, got 4"),
        ({"schedule": (1.0,) * 6}, "a factor for each of T = 5 steps, got 6"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(options, message, monkeypatch):
    task = perceptron(size=13)[0]
    monkeypatch.setattr(type(task), "gradient", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=message):
        train(task, constant_policy(task, 5), inner=Inner(**options))
    with pytest.raises(ValueError, match=message):
        search(task, 5, epochs=2, step_size=0.1, inner=Inner(**options))


def test_divergence_is_an_error():
    task = Quadratic()
    task.learning_rate = 1e6
    with pytest.raises(FloatingPointError, match="not finite from step"):
        train(task, constant_policy(task, 60), inner=Inner("momentum"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_search_descends_and_goes_on_bit_by_bit(optimizer, tmp_path):
    task = perceptron(torch.float32, size=40)[0]
    task.learning_rate = 0.02
    inner = Inner(optimizer, batch=10, schedule="cosine")
    options = {"epochs": 14, "method": "two-stage", "inner": inner}
    whole = search(task, 20, **options)
    assert whole.history[-1]["objective"] < 0.995 * whole.history[0]["objective"]

    class Enough(Exception):
        pass

    def stop(epoch):
        if epoch.number == 6:
            raise Enough

    path = tmp_path / "search.safetensors"
    with pytest.raises(Enough):
        search(task, 20, **options, checkpoint=path, callback=stop)
    resumed = search(task, 20, **options, checkpoint=path)
    assert torch.equal(resumed.policy, whole.policy)
    assert torch.equal(resumed.process.trajectory, whole.process.trajectory)
    assert str(resumed.history) == str(whole.history)  # nan is no number
    other = replace(inner, schedule=(1.0,) * 20)
    with pytest.raises(ValueError, match="of another search: inner:"):
        search(task, 20, **(options | {"inner": other}), checkpoint=path)
    with pytest.raises(ValueError, match="of another search: inner:"):
        search(task, 20, **(options | {"inner": PLAIN}), checkpoint=path)


def test_explicit_rates_are_known_again_in_a_checkpoint(tmp_path):
    task, path = perceptron(size=20)[0], tmp_path / "search.safetensors"
    options = {"epochs": 3, "step_size": 0.01, "inner": Inner(schedule=(1, 0.5, 2))}
    first = search(task, 3, **options, checkpoint=path)
    assert torch.equal(search(task, 3, **options, checkpoint=path).policy, first.policy)


def test_a_checkpoint_of_the_papers_search_says_nothing_of_the_optimiser(tmp_path):
    """So that those of before are known."""
    task, path = perceptron(size=20)[0], tmp_path / "search.safetensors"
    search(task, 3, epochs=2, step_size=0.01, checkpoint=path)
    assert "inner" not in load_checkpoint(path)[1]["identity"]


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_starts_train_with_the_same_optimiser(optimizer):
    task = perceptron(size=40)[0]
    inner = Inner(optimizer, batch=8)
    for start, options in ((greedy, {}), (static, {"sweeps": 2})):
        usual, found = start(task, 20, **options), start(task, 20, **options, inner=inner)
        assert (found.sum(1) - 1).abs().max() < 1e-12 and not torch.equal(usual, found)
    # the first step of the greedy one knows of no optimiser yet, nor who is in the batch
    assert torch.equal(greedy(task, 20)[0], greedy(task, 20, inner=inner)[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_preconditioner_is_what_a_step_does_with_its_gradient(optimizer):
    """M_t by differences of the step in g_t with û held; CT in its product likewise."""
    task = Quadratic()
    policy = random_policy(task, STEPS)
    process = train(task, policy, inner=Inner(optimizer, schedule="linear"))
    for t in (0, 3, STEPS - 1):
        state, after = process.state(t), process.state(t + 1)
        eta = task.learning_rate * process.inner.factors(STEPS)[t]
        move = (state[0] - after[0]) / eta
        mu, beta1 = process.inner.momentum, process.inner.beta1
        past = {"momentum": mu, "nesterov": mu**2}.get(optimizer, 0)
        if optimizer.startswith("adam"):
            bias1, bias2 = 1 - beta1 ** (t + 1), 1 - process.inner.beta2 ** (t + 1)
            past = beta1 / bias1 / ((after[2] / bias2).sqrt() + process.inner.epsilon)
        if len(state) > 1:
            move = move - past * state[1]
        slope = task.gradient(state[0], policy[t])
        diagonal = process.inner.preconditioner(process, t)
        torch.testing.assert_close(diagonal * slope, move, rtol=1e-9, atol=1e-12)
    found = preconditioned_contributions(task, process, examples=task.test)
    slopes = task.trajectory_gradients(process.trajectory[:-1], task.test)
    scaled = torch.stack([process.inner.preconditioner(process, t) for t in range(STEPS)])
    expected = torch.stack(
        [
            task.example_gradients(theta) @ (m * slope)
            for theta, m, slope in zip(process.trajectory, scaled, slopes, strict=False)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    usual = similarity(contributions(task, process, examples=task.test), policy)
    differs = not torch.allclose(similarity(found, policy), usual)
    assert differs == optimizer.startswith("adam")
    with pytest.raises(ValueError, match="t must be a step, 0 to 8, got 9"):
        process.inner.preconditioner(process, STEPS)


def test_names():
    assert BATCHES[0] == PLAIN.batches and OPTIMIZERS[0] == PLAIN.optimizer
    assert PLAIN.identity() == {}
    assert Inner("adam", schedule=(1, 2)).identity() == {"optimizer": "adam", "schedule": [1, 2]}
