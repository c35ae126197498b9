"""What ``torchrun`` starts in the tests of shared searches: searches, their results in files.

Arguments: a folder, a checkpoint or "" (and both precisions), and the number of updates
after which the last process dies.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist

from llbook.experiments.language_model import LANGUAGE_MODEL, LanguageModelConfig, build_task
from llbook.optimal import distributed
from llbook.optimal.distributed import Shared, SharedTrajectory
from llbook.optimal.process import constant_policy, train

FLAT = {
    "corpus": "grammar",
    "size": 14,
    "desired_size": 8,
    "length": 10,
    "vocabulary": 100,
    "hidden": 8,
    "heads": 2,
    "steps": 7,
    "epochs": 4,
    "measure_every": 2,
    "step_size": 2.0,
}


def main(folder, path, dies_after):
    distributed.start()
    searches = {"float64": {"precision": "float64"}}
    if not path:
        searches["float32"] = {"precision": "float32"}
        searches["adam"] = {"precision": "float64", "optimizer": "adam", "batch": 5}
        searches["two-stage"] = {"precision": "float64", "method": "two-stage", "epochs": 14}
    for name, changes in searches.items():
        searched(
            LanguageModelConfig.from_flat(FLAT | changes),
            Path(folder) / f"{name}.npz",
            Path(path) if path else None,
            int(dies_after or 0),
        )
    distributed.stop()


def searched(config, out, path, dies_after):
    shared = distributed.process_count() > 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    if dies_after and rank == distributed.process_count() - 1:
        die_at(dies_after)
    arrays = LANGUAGE_MODEL.compute(config, checkpoint=path)
    if shared:
        task = build_task(config)
        policy = constant_policy(task, config.training.steps)
        process = train(task, policy)
        assert isinstance(process.trajectory, SharedTrajectory)
        arrays |= {"columns": policy.shape[1], "states": len(process.trajectory.states)}
    if rank == 0:
        np.savez(out, **arrays)


def die_at(update):
    """End this process at once, in the projection after so many updates."""
    by_rows, calls = Shared.by_rows, 0

    def dying(self, function, columns):
        nonlocal calls
        calls += 1
        if calls > update:
            os._exit(9)
        return by_rows(self, function, columns)

    Shared.by_rows = dying


main(*sys.argv[1:])
