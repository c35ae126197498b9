"""Methods of data selection, one file each, and the values of the one knob that each is tuned by.

Every method gets the same search: each value of its knob is tried once, and the one with the
smallest area on the desired examples is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llbook.parameters import listed
from llbook.selection.methods.by_loss import ByLoss
from llbook.selection.methods.controller import Controller
from llbook.selection.methods.grad_match import GradMatch
from llbook.selection.methods.greedy import Greedy
from llbook.selection.methods.groups import Groups
from llbook.selection.methods.influence import Influence
from llbook.selection.methods.look_ahead import LookAhead
from llbook.selection.methods.mean_mixture import ExcessLoss, MeanMixture
from llbook.selection.methods.metagradient import Metagradient
from llbook.selection.methods.mixture import BestMixture, MixingLaw
from llbook.selection.methods.pds import PDS, OneSweep
from llbook.selection.methods.rho import Rho
from llbook.selection.methods.self_paced import SelfPaced
from llbook.selection.methods.tracin import TracIn
from llbook.selection.methods.uniform import Uniform
from llbook.selection.selector import Selector

__all__ = ["GROUPED", "HORIZONS", "METHODS", "SHARES", "Method", "method_names"]

SHARES = (0.002, 0.01, 0.05, 0.2, 0.6, 0.9)
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HORIZONS = (1, 5, 25, 100, None)


@dataclass(frozen=True)
class Method:
    """A selector and the knob that is tuned.

    Attributes:
        make: knob=value → a selector.
        knob: name of the argument; empty where there is none.
        values: those that are tried.
    """

    make: Callable[..., Selector]
    knob: str = ""
    values: tuple[float, ...] = ()


METHODS: dict[str, Method] = {
    "uniform": Method(Uniform),
    "hardest": Method(ByLoss, "share", SHARES),
    "easiest": Method(partial(ByLoss, sign=-1), "share", SHARES),
    "self-paced": Method(SelfPaced, "until", (0.1, 0.25, 0.5, 0.75, 1.0)),
    "rho": Method(Rho, "share", SHARES),
    "grad-match": Method(GradMatch, "atoms", (4, 8, 16, 32, 64, 128)),
    "greedy": Method(Greedy, "share", SHARES),
    "controller": Method(Controller, "gain", RATES),
    "tracin": Method(TracIn, "share", SHARES),
    "influence": Method(Influence, "share", SHARES),
    "pds-one-sweep": Method(OneSweep, "share", SHARES),
    "pds": Method(PDS, "sweeps", (10, 20, 40, 80)),
    "metagradient": Method(Metagradient, "changed", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "groups": Method(Groups, "rate", RATES),
    "doge": Method(MeanMixture, "rate", RATES),
    "doremi": Method(partial(MeanMixture, online=ExcessLoss), "rate", RATES),
    "mixing-law": Method(MixingLaw),
    "mixture": Method(BestMixture, "sweeps", (20,)),
    **{
        f"look-ahead-{horizon or 'all'}": Method(
            partial(LookAhead, horizon=horizon), "share", SHARES[:4]
        )
        for horizon in HORIZONS
    },
}
"""Name → method. A new one is a file beside the others and a line here."""

GROUPED = ("groups", "doge", "doremi", "mixing-law", "mixture")
"""Those that weigh groups of examples; they are told which are spoilt, where some are."""


def method_names(asked: str) -> list[str]:
    """Of the methods of a comparison, uniform first.

    Args:
        asked: names with commas, or ``"all"``.
    """
    named = METHODS if asked == "all" else listed(asked)
    return ["uniform", *(name for name in named if name != "uniform")]
