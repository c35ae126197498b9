"""The run store: hits, misses and their reasons, damage, processes at once, records."""

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from llbook.experiments.experiment import registry
from llbook.runs.entries import entries
from llbook.runs.files import in_use, leftovers, replacing, scratch, write_json
from llbook.runs.folders import build_folder, records_folder, repository_root
from llbook.runs.provenance import commit, device_kind
from llbook.runs.records import load_record, record_path, save_record
from llbook.runs.run import DamagedRun, Run, provenance_line, write_run
from llbook.runs.store import NotStored, RunStore, default_store, quietly, stored_only

CODE = ("llbook.runs.store",)
CONFIG = {"seed": 0, "search": {"epochs": 3, "step": 0.5}, "device": "cpu"}


def curves():
    return {"curve": np.linspace(0, 1, 7), "counts": np.arange(6).reshape(2, 3)}


def never():
    raise AssertionError("computed although stored")


@pytest.fixture
def lines():
    return []


@pytest.fixture
def store(tmp_path, lines):
    return RunStore(tmp_path / "runs", report=lines.append)


def test_second_call_loads(store, lines):
    first = store.load_or_compute("toy", CONFIG, curves, CODE)
    second = store.load_or_compute("toy", CONFIG, never, CODE)
    assert [line.partition("computing: ")[2] for line in lines] == ["no such run"]
    assert second.id == first.id
    assert second.config == CONFIG
    assert second.provenance == first.provenance
    assert second.provenance["versions"].keys() == {"torch", "numpy", "numba"}
    assert second.age.total_seconds() >= 0
    assert not second.recorded
    for name, array in curves().items():
        np.testing.assert_array_equal(second.arrays[name], array)
        assert second.arrays[name].dtype == array.dtype
    assert sorted(p.name for p in store.folder.iterdir()) == [
        f"{first.id}.{end}" for end in ("lock", "npz")
    ]
    with np.load(store.folder / f"{first.id}.npz", allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["curve"], curves()["curve"])


@pytest.mark.parametrize(
    ("build", "available", "kind"),
    [("2.13.0+cpu", True, "cpu"), ("2.13.0", False, "cpu"), ("2.13.0+cu130", True, "cuda")],
)
def test_device_is_that_of_the_installed_build(monkeypatch, build, available, kind):
    monkeypatch.setattr("importlib.metadata.version", lambda name: build)
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    assert device_kind() == kind
    assert device_kind("cuda") == "cuda"


def test_device_auto_is_the_device_it_comes_to(store, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    explicit = store.load_or_compute("toy", CONFIG, curves, CODE)
    automatic = store.load_or_compute("toy", CONFIG | {"device": "auto"}, never, CODE)
    assert automatic.id == explicit.id


def test_miss_names_what_differs_from_the_nearest(store, lines, monkeypatch):
    store.load_or_compute("toy", CONFIG | {"seed": 7, "search": {"epochs": 9}}, curves, CODE)
    store.load_or_compute("toy", CONFIG, curves, CODE)
    store.load_or_compute("toy", CONFIG | {"seed": 3}, curves, CODE)
    assert lines[-1].endswith("the nearest differs in config: seed 0 → 3")

    installed = importlib.metadata.version
    monkeypatch.setattr(
        "importlib.metadata.version", lambda n: "9.9" if n == "numba" else installed(n)
    )
    store.load_or_compute("toy", CONFIG, curves, CODE)
    assert lines[-1].endswith(f"the nearest differs in numba {installed('numba')} → 9.9")


def computed_anew(store, config=CONFIG, code=CODE, **options):
    """Whether it was not there."""
    calls = []
    store.load_or_compute("toy", config, lambda: calls.append(1) or curves(), code, **options)
    return bool(calls)


def test_all_that_decides_a_run_is_in_its_key(store, monkeypatch):
    assert computed_anew(store)
    assert not computed_anew(store)
    assert not computed_anew(store, dict(reversed(CONFIG.items())))
    assert computed_anew(store, CONFIG | {"search": {"epochs": 3, "step": 0.25}})
    assert computed_anew(store, code=[*CODE, "llbook.runs.key"])
    assert computed_anew(store, CONFIG | {"device": "cuda"})
    installed, changed = importlib.metadata.version, {}
    monkeypatch.setattr("importlib.metadata.version", lambda n: changed.get(n) or installed(n))
    for library in ("torch", "numpy", "numba"):
        changed[library] = "0.0"
        assert computed_anew(store), library
    assert computed_anew(store, libraries=["sentencepiece"])
    changed["sentencepiece"] = "0.0"
    assert computed_anew(store, libraries=["sentencepiece"])
    assert not computed_anew(store)
    monkeypatch.setattr("sys.version_info", (3, 99, 1))
    assert computed_anew(store)
    monkeypatch.setattr("sys.version_info", (3, 99, 2))
    assert not computed_anew(store)


@pytest.mark.parametrize("name", ["language-model", "explorer-language-model"])
def test_the_language_model_is_known_by_its_tokeniser(tmp_path, monkeypatch, name):
    monkeypatch.setenv("LLBOOK_BUILD", str(tmp_path))
    experiment = registry()[name]
    config = experiment.config.from_flat({"corpus": "grammar"})
    ids, installed = set(), importlib.metadata.version
    for name in ("nothing", "mistral-common", "sentencepiece"):
        monkeypatch.setattr(
            "importlib.metadata.version", lambda n, name=name: "0" if n == name else installed(n)
        )
        with stored_only(), pytest.raises(NotStored) as caught:
            experiment.run(config)
        ids.add(caught.value.id)
    assert len(ids) == 3


def test_prose_and_layout_of_the_code_are_not_in_the_key(store, tmp_path, monkeypatch):
    source = tmp_path / "toy_engine.py"
    monkeypatch.syspath_prepend(tmp_path)
    source.write_text("rate = 1\n\n\ndef double(x):\n    return 2 * x\n")
    assert computed_anew(store, code=["toy_engine"])
    source.write_text(
        '"""An engine."""\nrate = 1  # how fast\n"""In epochs."""\n\n# twice\n'
        'def double(x):\n    """2 x"""\n    return (2 *\n        x)\n'
    )
    assert not computed_anew(store, code=["toy_engine"])
    for other in ("rate = 2", "rate = 1.0", "rate = '1'"):
        source.write_text(source.read_text().replace("rate = 1", other))
        assert computed_anew(store, code=["toy_engine"]), other
        source.write_text(source.read_text().replace(other, "rate = 1"))
    source.write_text("rate = = 1")  # no Python: by its bytes
    assert computed_anew(store, code=["toy_engine"])
    source.write_text("rate = = 2")
    assert computed_anew(store, code=["toy_engine"])


def test_changed_code_is_a_miss(store, lines, tmp_path, monkeypatch):
    package = tmp_path / "toy_engine"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner" / "__init__.py").touch()
    (package / "inner" / "step.py").write_text("rate = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    store.load_or_compute("toy", CONFIG, curves, ["toy_engine.inner"])
    (package / "inner" / "step.py").write_text("rate = 2\n")
    store.load_or_compute("toy", CONFIG, curves, ["toy_engine.inner"])
    assert lines[-1].endswith("code changed: toy_engine/inner/step.py")
    (package / "__init__.py").write_text("# outside of the part that was named\n")
    store.load_or_compute("toy", CONFIG, never, ["toy_engine.inner"])
    with pytest.raises(ModuleNotFoundError, match=r"toy_engine\.missing"):
        store.load_or_compute("toy", CONFIG, never, ["toy_engine.missing"])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "harm",
    [truncate, alter, lambda path: path.write_bytes(b""), replace_by_folder],
)
def test_damaged_run_is_noticed_and_recomputed(store, lines, harm):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    file = store.folder / f"{run.id}.npz"
    harm(file)
    again = store.load_or_compute("toy", CONFIG, curves, CODE)
    assert "damaged" in lines[-1]
    assert f"moved to {run.id}.npz.damaged-1" in lines[-1]
    assert (store.folder / f"{run.id}.npz.damaged-1").exists()
    np.testing.assert_array_equal(again.arrays["counts"], curves()["counts"])
    store.load_or_compute("toy", CONFIG, never, CODE)
    harm(file)
    store.load_or_compute("toy", CONFIG, curves, CODE)
    assert f"moved to {run.id}.npz.damaged-2" in lines[-1]


def rewrite(path, change, *, sign=False):
    """Change run.json of a stored run; with a checksum that fits, or with the former one."""
    with zipfile.ZipFile(path) as archive:
        head = json.loads(archive.read("run.json"))
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "run.json"}
    change(head)
    if sign:
        fields = (head[name] for name in ("id", "kind", "config", "provenance"))
        write_run(Run(*fields, arrays), path)
        return
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("run.json", json.dumps(head))


@pytest.mark.parametrize(
    ("change", "sign", "message"),
    [
        (lambda head: head["config"].update(seed=9), False, "not have the stored checksum"),
        (lambda head: head["provenance"].update(device="x"), False, "not have the stored checksum"),
        (lambda head: head.update(sha257=head.pop("sha256")), False, "has sha257 unexpectedly"),
        (lambda head: head["provenance"]["parts"].update(kind="a"), True, "parts of its key"),
        (lambda head: head["provenance"].update(key="0" * 64), True, "its key is another"),
        (lambda head: head["provenance"].pop("parts"), True, "parts of its key"),
        (lambda head: head["provenance"].pop("key"), True, "its key is another"),
        (lambda head: head["provenance"].pop("seconds"), True, "lacks 'seconds'"),
    ],
)
def test_altered_description_of_a_run_is_noticed(store, lines, change, sign, message):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    rewrite(store.folder / f"{run.id}.npz", lambda head: None)
    store.load_or_compute("toy", CONFIG, never, CODE)
    rewrite(store.folder / f"{run.id}.npz", change, sign=sign)
    with pytest.raises(DamagedRun, match=message):
        store.load(run.id)
    store.load_or_compute("toy", CONFIG, curves, CODE)
    assert message in lines[-1]


def test_a_run_under_the_name_of_another_is_refused(store, lines):
    run, other = (
        store.load_or_compute("toy", CONFIG | {"seed": seed}, curves, CODE) for seed in (1, 2)
    )
    (store.folder / f"{run.id}.npz").rename(store.folder / f"{other.id}.npz")
    with pytest.raises(DamagedRun, match="its key is another"):
        store.load(other.id)
    with pytest.raises(FileNotFoundError, match=run.id):
        store.load(run.id)
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    key = run.provenance["key"][:12] + "0" * 52
    rewrite(
        store.folder / f"{run.id}.npz",
        lambda head: head["provenance"].update(key=key),
        sign=True,
    )
    store.load_or_compute("toy", CONFIG, curves, CODE)
    assert "its key is another" in lines[-1]


def test_stored_only_computes_and_writes_nothing(store, lines):
    with stored_only(), pytest.raises(NotStored) as caught:
        store.load_or_compute("toy", CONFIG, never, CODE)
    assert (caught.value.damage, caught.value.nearest) == ("", {})
    assert not store.folder.exists()
    far = store.load_or_compute("toy", CONFIG | {"seed": 1, "size": 2}, curves, CODE)
    near = store.load_or_compute("toy", CONFIG | {"seed": 2}, curves, CODE)
    with stored_only(), pytest.raises(NotStored) as caught:
        store.load_or_compute("toy", CONFIG, never, CODE)
    assert list(caught.value.nearest) == [near.id, far.id]
    assert caught.value.nearest[near.id] == ["config: seed 2 → 0"]
    with stored_only():
        found = store.load_or_compute("toy", CONFIG | {"seed": 2}, never, CODE)
    assert found.id == near.id
    truncate(store.folder / f"{near.id}.npz")
    with stored_only(), pytest.raises(NotStored) as caught:
        store.load_or_compute("toy", CONFIG | {"seed": 2}, never, CODE)
    assert caught.value.damage
    assert (store.folder / f"{near.id}.npz").is_file()


def test_entries_say_what_lies_there(store):
    assert entries(store.folder) == []
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    with pytest.raises(KeyboardInterrupt):
        store.load_or_compute("toy", CONFIG | {"seed": 1}, interrupted, CODE, resumable=True)
    (store.folder / f"{run.id}.npz.damaged-1").write_bytes(b"damaged")
    (store.folder / f".{run.id}.npz.1234.partial").write_bytes(b"half")
    (store.folder / "toy-0123456789ab").mkdir()  # as runs were stored formerly
    (store.folder / "toy-0123456789ab" / "arrays.npz").write_bytes(b"formerly")
    (store.folder / "notebooks").mkdir()
    (store.folder / f"{run.id}.txt").touch()
    listed = entries(store.folder)
    assert {entry.kind for entry in listed} == {"toy"}
    assert sorted((entry.state, entry.size) for entry in listed) == [
        ("damaged", 7),
        ("damaged", 8),
        ("interrupted", 4),
        ("stored", (store.folder / f"{run.id}.npz").stat().st_size),
        ("unfinished", 4),
    ]
    (entry,) = (entry for entry in listed if entry.state == "stored")
    assert (entry.id, entry.config, entry.outdated()) == (run.id, CONFIG, [])
    for entry in listed:
        entry.remove()
    assert {path.suffix for path in store.folder.iterdir()} == {"", ".lock", ".txt"}


def interrupted(path=None):
    if path is not None:
        path.write_bytes(b"half")
    raise KeyboardInterrupt


def test_an_interrupted_computation_goes_on_and_says_what_it_is_of(
    store, lines, tmp_path, monkeypatch
):
    (tmp_path / "toy_engine.py").write_text("rate = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def call(compute):
        return store.load_or_compute("toy", CONFIG, compute, ["toy_engine"], resumable=True)

    with pytest.raises(KeyboardInterrupt):
        call(interrupted)
    (entry,) = entries(store.folder)
    assert (entry.state, entry.kind, entry.config) == ("interrupted", "toy", CONFIG)
    assert entry.provenance["device"]
    assert entry.outdated() == []
    # as if an hour had passed between its start and its checkpoint; then a try without another
    os.utime(entry.path.with_suffix(".json"), (0, 1000))
    os.utime(entry.path, (0, 4600))
    with pytest.raises(KeyboardInterrupt):
        call(lambda path: interrupted())
    (entry,) = entries(store.folder)
    assert entry.provenance["seconds"] == 3600
    (store.folder / f".{entry.id}.checkpoint.safetensors.7.partial").touch()
    run = call(lambda path: {"before": np.frombuffer(path.read_bytes(), np.uint8)})
    assert lines[-1].endswith("an interrupted search goes on")
    assert run.arrays["before"].tobytes() == b"half"
    assert 3600 <= run.provenance["seconds"] < 7200
    assert sorted(path.suffix for path in store.folder.iterdir()) == [".lock", ".npz"]

    (tmp_path / "toy_engine.py").write_text("rate = 2\n")
    with pytest.raises(KeyboardInterrupt):
        call(interrupted)
    (tmp_path / "toy_engine.py").write_text("rate = 3\n")
    (entry,) = (entry for entry in entries(store.folder) if entry.state == "interrupted")
    assert entry.outdated() == ["code changed: toy_engine.py"]


def test_what_stopped_before_its_first_checkpoint_is_listed_where_it_was_killed(store):
    with pytest.raises(ZeroDivisionError):
        store.load_or_compute("toy", CONFIG, lambda path: 1 // 0, CODE, resumable=True)
    assert entries(store.folder) == []
    with pytest.raises(KeyboardInterrupt):
        store.load_or_compute("toy", CONFIG, interrupted, CODE, resumable=True)
    (entry,) = entries(store.folder)
    entry.path.unlink()
    (entry,) = entries(store.folder)
    assert (entry.state, entry.config) == ("interrupted", CONFIG)
    entry.remove()
    assert entries(store.folder) == []


def test_a_folder_left_while_it_was_removed_is_removed(store):
    left = store.folder / ".toy-0123456789ab.removed.partial"
    left.mkdir(parents=True)
    (left / "arrays.npz").touch()
    (entry,) = entries(store.folder)
    entry.remove()
    assert not left.exists()


def test_what_cannot_be_removed_is_named(store, monkeypatch):
    store.load_or_compute("toy", CONFIG, curves, CODE)
    (entry,) = entries(store.folder)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match=rf"cannot remove the run: Permission denied.*{entry.id}"):
        entry.remove()


def test_a_stored_run_is_found_where_nothing_can_be_written(store):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    lock = store.folder / f"{run.id}.lock"
    lock.unlink()
    lock.mkdir()  # no lock can be made, whoever asks
    assert store.load_or_compute("toy", CONFIG, never, CODE).id == run.id
    (store.folder / f"{run.id}.npz").unlink()
    with pytest.raises(OSError, match="cannot write to the folder"):
        store.load_or_compute("toy", CONFIG, never, CODE)


def test_stored_runs_are_read_for_a_reason_only_and_once(store, lines, monkeypatch):
    for seed in range(4):
        store.load_or_compute("toy", CONFIG | {"seed": seed}, curves, CODE)
    read, real = [], zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *a: read.append(1) or real(*a))
    with stored_only(), pytest.raises(NotStored) as caught:
        store.load_or_compute("toy", CONFIG | {"seed": 8}, never, CODE)
    assert not read
    nearest = list(caught.value.nearest.values())  # three of four that are as near
    assert [phrase.rpartition(" ")[2] for (phrase,) in nearest] == ["8", "8", "8"]
    newest = len(read)
    assert newest <= 4
    with quietly():
        store.load_or_compute("toy", CONFIG | {"seed": 8}, curves, CODE)
    assert lines[-1].endswith("computing: no such run")
    assert len(read) == newest
    store.load_or_compute("toy", CONFIG | {"seed": 9}, curves, CODE)
    assert len(read) == newest + 1  # the one that is new
    assert lines[-1].endswith(" → 9")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "facts.json"
    write_json(path, {"a": "ä"})
    assert path.read_text(encoding="utf-8") == '{\n "a": "ä"\n}\n'
    for durable in (False, True):
        with pytest.raises(KeyboardInterrupt), replacing(path, durable=durable) as temporary:
            interrupted(temporary)
        with (
            pytest.raises(OSError, match=r"cannot say: No such file.*facts\.json"),
            replacing(path, "say", durable=durable),
        ):
            (tmp_path / "missing").read_bytes()
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert list(path.parent.iterdir()) == [path]
    with replacing(path, durable=True) as temporary:
        temporary.write_text("whole")
        assert leftovers(tmp_path) == []  # it may be being written
        os.utime(temporary, (0, 0))
        assert leftovers(tmp_path) == [temporary]
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_a_power_cut_undoes_neither_the_content_nor_the_name(tmp_path, monkeypatch, durable):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    with replacing(tmp_path / "file", durable=durable) as temporary:
        temporary.write_text("content")
    expected = [path.stat().st_ino for path in (tmp_path / "file", tmp_path)]
    assert synced == expected * durable


WORK = """
import os, pathlib, signal, sys
from llbook.runs.files import in_use, scratch
kept = pathlib.Path(sys.argv[1], "kept", ".toy.partial")
kept.mkdir(parents=True)
with scratch(pathlib.Path(sys.argv[1]), ".run-") as work, in_use(kept):
    (work / ".inner.partial").touch()
    os.utime(work / ".inner.partial", (0, 0))
    print("working", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_found_once_it_is_dead(tmp_path):
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"working\n"
        assert leftovers(tmp_path) == []
        process.stdin.write(b"\n")
    assert [path.name.partition("-")[0] for path in leftovers(tmp_path)] == [".run", ".toy.partial"]
    with scratch(tmp_path, ".dask-") as folder, in_use(tmp_path / "kept"):
        assert folder not in leftovers(tmp_path)
    assert not folder.exists()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [".toy.partial"]


def test_outdated_names_what_changed(store, monkeypatch, tmp_path):
    (tmp_path / "toy_engine.py").write_text("rate = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    store.load_or_compute("toy", CONFIG, curves, ["toy_engine"])
    (entry,) = entries(store.folder)
    assert entry.outdated() == []
    (tmp_path / "toy_engine.py").write_text("rate = 2\n")
    assert entry.outdated() == ["code changed: toy_engine.py"]
    (tmp_path / "toy_engine.py").unlink()
    assert entry.outdated() == ["code gone: toy_engine.py"]


def test_failed_computation_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError):
        store.load_or_compute("toy", CONFIG, lambda: 1 // 0, CODE)
    assert not entries(store.folder)


def test_disk_full_names_the_path_and_leaves_nothing(store, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array", full)
    with pytest.raises(OSError, match=r"cannot store the run: No space left.*toy-") as caught:
        store.load_or_compute("toy", CONFIG, curves, CODE)
    assert caught.value.errno == errno.ENOSPC
    assert not entries(store.folder)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to the folder.*file/runs"):
        RunStore(tmp_path / "file" / "runs").load_or_compute("toy", CONFIG, curves, CODE)


@pytest.mark.parametrize(
    ("kind", "config", "result", "error", "message"),
    [
        ("To y", {}, {}, ValueError, "got 'To y'"),
        ("toy", {"a": {"b": object}}, {}, TypeError, r"config\.a\.b"),
        ("toy", {"a": float("nan")}, {}, ValueError, r"config\.a: expected a finite number"),
        ("toy", {1: 2}, {}, TypeError, "got 1"),
        ("toy", {}, {"a": np.array([None])}, TypeError, "'a': dtype object"),
        ("toy", {}, {"a/b": np.zeros(1)}, ValueError, "'a/b'"),
        ("toy", {}, [1], TypeError, "got list"),
    ],
)
def test_bad_input(store, kind, config, result, error, message):
    with pytest.raises(error, match=message):
        store.load_or_compute(kind, config | {"device": "cpu"}, lambda: result, CODE)
    assert not entries(store.folder)


def test_lock_is_free_afterwards(store):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    with FileLock(store.folder / f"{run.id}.lock", timeout=0) as lock:
        assert lock.is_locked


WORKER = """
import sys, time, pathlib, numpy as np
from llbook.runs.store import RunStore
folder = pathlib.Path(sys.argv[1])
def compute():
    with open(folder / "calls", "a") as file:
        file.write("x")
    time.sleep(0.5)
    return {"a": np.arange(4)}
run = RunStore(folder).load_or_compute("toy", {"device": "cpu"}, compute, ["llbook.runs.store"])
assert run.arrays["a"].tolist() == [0, 1, 2, 3]
"""


def test_processes_at_once_compute_once(tmp_path):
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "x"


def test_record_round_trip(store, tmp_path):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    path = save_record(run, tmp_path / "records" / "toy.npz")
    record = load_record(path)
    assert record.recorded
    assert (record.id, record.config) == (run.id, run.config)
    assert record.provenance == run.provenance
    np.testing.assert_array_equal(record.arrays["counts"], run.arrays["counts"])
    with np.load(path, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["curve"], run.arrays["curve"])
    content = path.read_bytes()
    assert save_record(record, path).read_bytes() == content
    with zipfile.ZipFile(path) as archive:  # nor will it be another one tomorrow
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert [p.name for p in path.parent.iterdir()] == ["toy.npz"]


def test_no_byte_of_a_record_changes_unnoticed(store, tmp_path):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    path = save_record(run, tmp_path / "toy.npz")
    content = path.read_bytes()
    noticed = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            record = load_record(path)
        except DamagedRun:
            noticed += 1
            continue
        # a date in the archive's own directory, say
        assert record.config == run.config
        assert record.provenance == run.provenance
        assert record.arrays.keys() == run.arrays.keys()
        for name, array in run.arrays.items():
            np.testing.assert_array_equal(record.arrays[name], array)
    assert noticed > len(content) / 7 / 2


def test_record_put_together_again_is_refused_and_an_older_one_is_read(store, tmp_path):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    path = save_record(run, tmp_path / "toy.npz")
    with zipfile.ZipFile(path) as archive:
        head = json.loads(archive.read("run.json"))

    def write(head, arrays):
        np.savez(path, **arrays)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("run.json", json.dumps(head))

    write(head, curves())
    assert load_record(path).config == CONFIG
    counts = curves()["counts"]
    for other in (np.ones((2, 3), int), counts.reshape(3, 2), counts.view(np.uint64)):
        write(head, curves() | {"counts": other})
        with pytest.raises(DamagedRun, match="checksum"):
            load_record(path)
    write(head, {"curve": curves()["curve"], "count": counts})
    with pytest.raises(DamagedRun, match="checksum"):
        load_record(path)
    write({k: v for k, v in head.items() if k != "sha256"}, curves())
    assert load_record(path).config == CONFIG


def test_record_by_name(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LLBOOK_RECORDS", str(tmp_path))
    save_record(store.load_or_compute("toy", CONFIG, curves, CODE), record_path("toy-seed0"))
    assert load_record("toy-seed0").kind == "toy"
    with pytest.raises(FileNotFoundError, match=r"toy-seed1\.npz"):
        load_record("toy-seed1")


def test_record_too_large_is_refused(tmp_path):
    noise = np.random.default_rng(0).random(600_000)
    run = Run("toy-0", "toy", {}, {"seconds": 1.0}, {"noise": noise, "few": np.zeros(3)})
    with pytest.raises(ValueError, match=r"4,000,000 bytes.*largest array is 'noise'"):
        save_record(run, tmp_path / "toy.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        save_record(run, tmp_path / "toy.zip")
    assert not list(tmp_path.iterdir())


def test_damaged_and_pickled_records_are_refused(store, tmp_path):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    path = save_record(run, tmp_path / "toy.npz")
    truncate(path)
    with pytest.raises(DamagedRun, match=r"toy\.npz"):
        load_record(path)
    np.savez(path, a=np.array([{}], dtype=object))
    with zipfile.ZipFile(path, "a") as archive:
        head = {"id": "a", "kind": "a", "config": {}, "provenance": {"seconds": 1}}
        archive.writestr("run.json", json.dumps(head))
    with pytest.raises(DamagedRun, match="allow_pickle"):
        load_record(path)


def test_provenance_line(store):
    run = store.load_or_compute("toy", CONFIG, curves, CODE)
    line = provenance_line(run, "perceptron", {"seed": 3, "search": {"epochs": 3, "step": 0.5}})
    assert line.startswith(f"perceptron · seed = 0, device = cpu · run {run.id} · live run, ")
    assert run.provenance["date"][:10] in line
    recorded = Run(run.id, run.kind, run.config, run.provenance, {}, recorded=True)
    assert " · default parameters · " in provenance_line(recorded, "perceptron", CONFIG)
    assert "recorded run" in provenance_line(recorded, "perceptron", CONFIG)


def test_build_hears_of_runs_without_printing(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    monkeypatch.setenv("LLBOOK_RUN_LOG", str(log))
    for _ in range(2):
        RunStore(tmp_path).load_or_compute("toy", CONFIG, curves, CODE)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["state"] for entry in entries] == ["computed", "stored"]
    assert capsys.readouterr().out == ""


def test_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("LLBOOK_BUILD", raising=False)
    monkeypatch.delenv("LLBOOK_RECORDS", raising=False)
    root = repository_root()
    assert (root / "pyproject.toml").is_file()
    assert build_folder() == root / "build"
    assert records_folder() == root / "book" / "records"
    monkeypatch.setenv("LLBOOK_BUILD", os.fspath(tmp_path))
    assert default_store().folder == tmp_path / "runs"
    # installed away from a repository
    monkeypatch.delenv("LLBOOK_BUILD")
    monkeypatch.setattr("llbook.__file__", str(tmp_path / "site-packages" / "llbook" / "x.py"))
    assert repository_root() is None
    assert build_folder().name == "llbook"
    with pytest.raises(FileNotFoundError, match="LLBOOK_RECORDS"):
        records_folder()


def test_a_commit_counts_as_changed_by_anything_but_records(tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    record, source = tmp_path / "book" / "records" / "one.npz", tmp_path / "code.py"
    record.parent.mkdir(parents=True)
    record.write_text("1")
    source.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr("llbook.runs.provenance.repository_root", lambda: tmp_path)
    assert commit()["dirty"] is False
    record.write_text("2")  # as while several are written one after another
    assert commit()["dirty"] is False
    source.write_text("2")
    assert commit()["dirty"] is True
