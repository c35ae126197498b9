"""Kills a search at random moments, again and again, and lets it finish: FOLDER KIND CONFIG KILLS.

A process that has imported everything forks a child per attempt, so that an attempt
takes no longer than its search. Leaves whole.npz, of an uninterrupted search, resumed.npz,
and kills.json: per kill the epoch that had begun and the updates in the checkpoint.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from llbook.experiments.experiment import registry
from llbook.optimal import checkpoint as checkpoints
from llbook.optimal.checkpoint import load_checkpoint


def child(work):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def main(folder, kind, flat, kills):
    torch.set_num_threads(1)
    experiment = registry()[kind]
    config = experiment.config.from_flat(json.loads(flat))
    folder, generator = Path(folder), random.Random(0)
    checkpoint, begun = folder / "search.safetensors", folder / "begun"

    class Noted(experiment.measure):
        """An epoch has begun once its policy is measured; every one is."""

        def __call__(self, epoch):
            with begun.open("a") as file:  # a line is written whole
                file.write(f"{epoch.number}\n")
            super().__call__(epoch)

    experiment = replace(experiment, measure=Noted)
    written = checkpoints.save_file

    def slowly(tensors, path, metadata):
        """So that some of the kills fall into the writing."""
        written(tensors, path, metadata)
        content = Path(path).read_bytes()
        with open(path, "wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            time.sleep(pause)
            file.write(content[len(content) // 2 :])

    pause = 0.0
    checkpoints.save_file = slowly

    def search(name, path):
        np.savez(folder / name, **experiment.compute(config, checkpoint=path))

    def attempt(name, path):
        return child(lambda: search(name, path))

    assert os.waitpid(attempt("whole.npz", None), 0)[1] == 0
    # storing an epoch can take longer than the epoch: time both together
    start = time.perf_counter()
    assert os.waitpid(attempt("timed.npz", folder / "timed.safetensors"), 0)[1] == 0
    pause = (time.perf_counter() - start) / (config.search.epochs + 1)
    each = 2 * pause
    seen = []
    while len(seen) < kills:
        begun.write_text("")
        process = attempt("killed.npz", checkpoint)
        while not begun.read_text():
            time.sleep(each / 50)
            assert os.waitpid(process, os.WNOHANG) == (0, 0), "the search ended before its kill"
        time.sleep(generator.uniform(0, 1.5 * each))
        os.kill(process, signal.SIGKILL)
        how = os.waitpid(process, 0)[1]
        assert os.WIFSIGNALED(how), "the search ended before its kill"
        updates = load_checkpoint(checkpoint)[1]["updates"] if checkpoint.exists() else 0
        seen.append((int(begun.read_text().split()[-1]), updates))
    (folder / "kills.json").write_text(json.dumps(seen))
    assert os.waitpid(attempt("resumed.npz", checkpoint), 0)[1] == 0


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
