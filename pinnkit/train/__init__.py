"""Optimisers, causal weights, the loop and its callbacks; knows nothing of PDEs."""

from pinnkit.train.adam import Adam
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.causality import CausalSchedule
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.iteration import Callback, Iteration, StepInfo, iterate
from pinnkit.train.lbfgs import LBFGS
from pinnkit.train.newton_cg import NysNewtonCG
from pinnkit.train.ranks import RankError, Ranks, join_ranks
from pinnkit.train.residual_model import AbstractOptimiser, ResidualModel, StepReport
from pinnkit.train.self_scaled_broyden import SelfScaledBroyden
from pinnkit.train.soap import SOAP

__all__ = [
    "LBFGS",
    "SOAP",
    "AbstractOptimiser",
    "Adam",
    "Callback",
    "CausalSchedule",
    "GaussNewton",
    "History",
    "Iteration",
    "NysNewtonCG",
    "Progress",
    "RankError",
    "Ranks",
    "ResidualModel",
    "SelfScaledBroyden",
    "StepInfo",
    "StepReport",
    "iterate",
    "join_ranks",
]
