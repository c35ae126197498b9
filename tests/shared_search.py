"""What ``torchrun`` starts in the tests of shared searches: one search, its results in a file.

Arguments: the file, the precision, a checkpoint or "", and the number of updates after
which the last process dies.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist

from llbook.experiments import language_model
from llbook.experiments.config import LanguageModelConfig
from llbook.optimal import distributed
from llbook.optimal.distributed import SharedTrajectory
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


def main(out, precision, path, dies_after):
    distributed.start()
    last = dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1
    config = LanguageModelConfig.from_flat(FLAT | {"precision": precision})
    if dies_after and last:
        step = type(language_model.build_task(config, language_model.load_examples(config)[1]))
        project, calls = step.project, [0]

        def dying(self, columns):
            calls[0] += 1
            if calls[0] > int(dies_after):
                os._exit(9)
            return project(self, columns)

        step.project = dying
    arrays = language_model.compute(config, checkpoint=Path(path) if path else None)
    facts = {}
    if dist.is_initialized() and dist.get_world_size() > 1:
        task = language_model.build_task(config, language_model.load_examples(config)[1])
        policy = constant_policy(task, config.training.steps)
        process = train(task, policy)
        assert isinstance(process.trajectory, SharedTrajectory)
        facts = {"columns": policy.shape[1], "states": len(process.trajectory.states)}
    if not dist.is_initialized() or dist.get_rank() == 0:
        np.savez(out, **arrays, **facts)
    distributed.stop()


main(*sys.argv[1:])
