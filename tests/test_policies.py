"""Policies as files to be deposited: what they cost, what they lose, and that they are checked."""

import functools
import http.server
import threading

import numpy as np
import pytest
import torch

from llbook.experiments.experiment import Recorded
from llbook.experiments.perceptron import PERCEPTRON
from llbook.runs import policies
from llbook.runs.policies import Deposit, deposited, list_policy, load_policy, save_policy
from llbook.runs.run import DamagedRun, Run, read_run, write_run


def sparse(steps, size, weights, seed=0):
    """A policy with so many weights a step, in the places that chance gives."""
    generator = torch.Generator().manual_seed(seed)
    policy = torch.zeros(steps, size)
    for row in policy:
        row[torch.randperm(size, generator=generator)[:weights]] = torch.rand(
            weights, generator=generator
        )
    return policy / policy.sum(1, keepdim=True)


POLICIES = {
    "equal": torch.full((7, 100), 0.01),
    "sparse": sparse(40, 512, 20),
    "dense": sparse(40, 512, 512),
    "one weight": sparse(5, 9, 1),
}


@pytest.fixture
def records(tmp_path, monkeypatch):
    """A folder of records of its own, with a build folder beside it."""
    monkeypatch.setenv("LLBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("LLBOOK_BUILD", str(tmp_path / "build"))
    return tmp_path / "records"


def test_two_that_list_their_policies_at_once(records, monkeypatch):
    """The second waits for the first, which has read the list already."""
    read, go_on = threading.Event(), threading.Event()

    def slow():
        found = deposited()
        if threading.current_thread() is first:
            read.set()
            assert go_on.wait(60)
        return found

    def listed(name):
        list_policy(name, Deposit(f"{name}.npz", "0" * 64, 1, 0.0))

    monkeypatch.setattr(policies, "deposited", slow)
    first, second = (threading.Thread(target=listed, args=(name,)) for name in ("one", "two"))
    first.start()
    assert read.wait(60)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join()
    second.join()
    assert set(deposited()) == {"one", "two"}
    assert {path.name for path in records.iterdir()} == {"policies.json"}


@pytest.fixture
def server(tmp_path):
    """The address of a folder that stands in for a repository with releases, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}", folder
        served.shutdown()
        thread.join()


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_read_is_on_the_simplex_and_as_near_as_stated(name, tmp_path):
    policy = POLICIES[name]
    path = tmp_path / "policy.npz"
    deposit = save_policy(policy, path)
    read = load_policy(path)
    assert read.shape == policy.shape and read.dtype == torch.float32
    torch.testing.assert_close(read.double().sum(1), torch.ones(len(policy)).double())
    lost = float((read - policy).abs().double().sum(1).max())
    assert lost == pytest.approx(deposit.error, rel=0.06)
    # half a level for each weight, and again for the sum that they are divided by
    most = (policy.max(1).values * (policy > 0).sum(1)).max()
    assert lost <= float(most) / 65535 + 1e-6
    assert deposit.bytes == path.stat().st_size


def test_a_sparse_policy_takes_few_bytes(tmp_path):
    policy = POLICIES["sparse"]
    deposit = save_policy(policy, tmp_path / "policy.npz")
    assert deposit.bytes < policy.numel() * 4 / 10


def test_the_same_policy_gives_the_same_bytes_and_says_where_it_comes_from(tmp_path):
    origin = {"seconds": 3.0, "commit": "0123abc"}
    run = Run("toy", "perceptron", {"seed": 3}, origin, {})
    made = [save_policy(POLICIES["sparse"], tmp_path / f"{n}.npz", of=run) for n in range(2)]
    assert made[0].sha256 == made[1].sha256
    read = read_run(tmp_path / "0.npz")
    assert (read.id, read.kind) == ("toy", "perceptron-policy")
    assert read.config == {"seed": 3} and read.provenance == origin


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (torch.ones(3), r"shape \(T, N\), got \(3,\)"),
        (torch.full((2, 4), 0.5), "a sum that is 1 off"),
        (torch.tensor([[1.5, -0.5]]), "got one of -0.5"),
        (torch.full((2, 4), torch.nan), "got one of nan"),
    ],
)
def test_what_is_no_policy_is_not_written(policy, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        save_policy(policy, tmp_path / "policy.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz, got"):
        save_policy(POLICIES["equal"], tmp_path / "policy.npy")
    assert not [*tmp_path.iterdir()]


def test_an_altered_file_is_not_read(tmp_path):
    path = tmp_path / "policy.npz"
    save_policy(POLICIES["sparse"], path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedRun):
        load_policy(path)
    write_run(Run("other", "other", {}, {"seconds": 1.0}, {"levels": np.arange(3)}), path)
    with pytest.raises(DamagedRun, match="no policy"):
        load_policy(path)
    with pytest.raises(FileNotFoundError):
        load_policy(tmp_path / "none.npz")


def test_a_listed_policy_is_downloaded_once_and_checked(records, server, monkeypatch, tmp_path):
    address, folder = server
    deposit = save_policy(POLICIES["sparse"], tmp_path / "toy.npz")
    list_policy("toy", deposit)
    assert deposited() == {"toy": deposit}
    with pytest.raises(ValueError, match="set LLBOOK_REPOSITORY"):
        load_policy("toy")
    with pytest.raises(ValueError, match="'tyo'; there are: toy"):
        load_policy("tyo")
    monkeypatch.setenv("LLBOOK_REPOSITORY", f"{address}/")
    with pytest.raises(ConnectionError, match="404"):
        load_policy("toy")
    asset = folder / deposit.url
    asset.parent.mkdir(parents=True)
    asset.write_bytes(b"a page that says no")
    with pytest.raises(ValueError, match=f"and 19 bytes, expected {deposit.sha256}"):
        load_policy("toy")
    assert not [*tmp_path.glob("build/policies/*")]
    asset.write_bytes((tmp_path / "toy.npz").read_bytes())
    read = load_policy("toy")
    asset.unlink()
    assert torch.equal(load_policy("toy"), read)  # without a request
    assert torch.equal(load_policy(tmp_path / "toy.npz"), read)


def test_the_policy_of_a_recorded_run_is_searched_and_listed(records, tmp_path, monkeypatch):
    small = {"size": 16, "desired_size": 8, "dimension": 4, "steps": 9, "epochs": 4}
    experiment = type(PERCEPTRON)(
        **{**vars(PERCEPTRON), "recorded": {"toy": Recorded(small, seeds=(0,))}}
    )
    (name,) = experiment.recorded_configs()
    deposit = experiment.deposit(name, tmp_path / "made", progress=False)
    assert deposited() == {name: deposit}
    assert [path.name for path in (tmp_path / "made").iterdir()] == [f"{name}.npz"]
    run = experiment.run(experiment.recorded_configs()[name])
    read = read_run(tmp_path / "made" / f"{name}.npz")
    assert read.config == run.config
    assert read.provenance["history"]["auc"] == run.arrays["history_auc"][-1]
    assert load_policy(tmp_path / "made" / f"{name}.npz").shape == (9, 16)
    with pytest.raises(ValueError, match="'perceptron-starts' is no recorded run"):
        experiment.deposit("perceptron-starts", tmp_path)
