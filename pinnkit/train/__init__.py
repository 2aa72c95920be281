"""Optimisers, the loop and its callbacks; knows nothing of PDEs."""

from pinnkit.train.callbacks import History, Progress
from pinnkit.train.loop import Callback, Iteration, StepInfo, iterate

__all__ = ["Callback", "History", "Iteration", "Progress", "StepInfo", "iterate"]
