"""Ways to descend J over the policies: one file each, behind one interface."""

from llbook.optimal.methods.method import Method, Settings
from llbook.optimal.methods.mirror import Mirror
from llbook.optimal.methods.projected_gradient import ProjectedGradient
from llbook.optimal.methods.spectral import Spectral
from llbook.optimal.methods.two_stage import TwoStage

__all__ = ["METHODS", "Method", "Settings"]

METHODS: dict[str, type[Method]] = {
    "projected-gradient": ProjectedGradient,
    "spectral": Spectral,
    "mirror": Mirror,
    "two-stage": TwoStage,
}
