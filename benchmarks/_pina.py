"""PINA on a problem of `peers.py`, in a process and usually an environment of its own.

    python benchmarks/peers.py --pina ENVIRONMENT/bin/python      starts it; PINA 0.3, lightning, torch

pinnkit does not depend on PINA, so this file imports nothing of pinnkit. `FILE.npz` brings the judging
grid and the settings, and takes the values back. Settings are those DeepXDE gets: the same points,
network, float64, Adam 1e-3 and then L-BFGS (strong Wolfe) until the limit; conditions are built into the
network where DeepXDE's are, else residuals of PINA's own condition classes.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
import sys
import time
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.callbacks import Timer
from pina import Condition, LabelTensor, Trainer
from pina.callback import SwitchOptimizer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad, laplacian
from pina.optim import TorchOptimizer
from pina.problem import SpatialProblem, TimeDependentProblem
from pina.solver import PhysicsInformedSingleModelSolver

PER_EPOCH = 50  # L-BFGS steps between looks at the clock


def _burgers(xt: Any, u: Any) -> Any:
    first = grad(u, xt, components=["u"], d=["x", "t"])
    second = laplacian(u, xt, components=["u"], d=["x"])
    return first["dudt"] + u * first["dudx"] - 0.01 / math.pi * second


def _allen_cahn(xt: Any, u: Any) -> Any:
    u_t = grad(u, xt, components=["u"], d=["t"])
    return u_t - 1e-4 * laplacian(u, xt, components=["u"], d=["x"]) - 5 * (u - u**3)


def _convection(xt: Any, u: Any) -> Any:
    first = grad(u, xt, components=["u"], d=["x", "t"])
    return first["dudt"] + 50 * first["dudx"]


def _wave(xt: Any, u: Any) -> Any:
    u_tt = laplacian(u, xt, components=["u"], d=["t"])
    return u_tt - 4 * laplacian(u, xt, components=["u"], d=["x"])


RESIDUALS = {
    "burgers": _burgers,
    "allen-cahn": _allen_cahn,
    "convection": _convection,
    "wave": _wave,
}
STARTS = {
    "burgers": lambda x: -torch.sin(math.pi * x),
    "allen-cahn": lambda x: x**2 * torch.cos(math.pi * x),
    "convection": torch.sin,
    "wave": lambda x: torch.sin(math.pi * x) + 0.5 * torch.sin(4 * math.pi * x),
}


class Conditioned(torch.nn.Module):
    """u0 + t^k N, times the distances to both sides if u = 0 there; a ring by its angle."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given
        inputs = 3 if given["periodic"] else 2
        self.network = FeedForward(inputs, 1, layers=given["layers"], func=torch.nn.Tanh)

    def forward(self, points: Any) -> Any:
        """Values of u at (x, t)."""
        given = self.given
        x = points.extract(["x"]).as_subclass(torch.Tensor)
        t = points.extract(["t"]).as_subclass(torch.Tensor)
        low, high = given["bounds"]
        if given["periodic"]:
            angle = 2 * math.pi * (x - low) / (high - low)
            n = self.network(torch.cat([torch.cos(angle), torch.sin(angle), t], 1))
        else:
            n = self.network(torch.cat([x, t], 1))
        if given["hard"]:
            n = n * (t**2 if given["second"] else t)
            n = n if given["periodic"] else n * (x - low) * (high - x)
            n = n + STARTS[given["case"]](x)
        return LabelTensor(n, ["u"])


def make_problem(given: dict[str, Any]) -> Any:
    """The declaration in PINA's classes, its points drawn."""
    low, high = given["bounds"]
    space, span = CartesianDomain({"x": [low, high]}), {"t": [0, given["end"]]}
    start = STARTS[given["case"]]
    inside = {"D": CartesianDomain({"x": [low, high], **span})}
    faces = {
        "start": CartesianDomain({"x": [low, high], "t": 0}),
        "left": CartesianDomain({"x": low, **span}),
        "right": CartesianDomain({"x": high, **span}),
    }
    residuals = {"D": Condition(domain="D", equation=Equation(RESIDUALS[given["case"]]))}
    if not given["hard"]:
        at_start = Equation(lambda xt, u: u - start(xt.extract(["x"])))
        residuals["start"] = Condition(domain="start", equation=at_start)
        for side in ("left", "right"):
            residuals[side] = Condition(domain=side, equation=Equation(lambda xt, u: u))

    class Declared(SpatialProblem, TimeDependentProblem):
        output_variables: ClassVar = ["u"]
        spatial_domain = space
        temporal_domain = CartesianDomain(span)
        domains = inside if given["hard"] else {**inside, **faces}
        conditions = residuals

    problem = Declared()
    n, sides, first = given["points"]
    problem.discretise_domain(n, "random", domains=["D"])
    if not given["hard"]:
        problem.discretise_domain(first, "random", domains=["start"])
        problem.discretise_domain(sides // 2, "random", domains=["left", "right"])
    return problem


def run(path: str) -> None:
    """Train, and save the values on the grid."""
    with np.load(path, allow_pickle=False) as f:
        x, t = f["x"], f["t"]
        given: dict[str, Any] = {k: f[k].tolist() for k in f.files if k not in ("x", "t")}
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(given["seed"])
    solver = PhysicsInformedSingleModelSolver(
        make_problem(given),
        Conditioned(given),
        optimizer=TorchOptimizer(torch.optim.Adam, lr=1e-3),
    )
    polish = TorchOptimizer(
        torch.optim.LBFGS, lr=1.0, max_iter=PER_EPOCH, max_eval=2 * PER_EPOCH, history_size=100,
        tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip
    epochs = given["steps"] + math.ceil(given["polish"] / PER_EPOCH)
    clock = time.perf_counter()
    trainer = Trainer(
        solver,
        max_epochs=epochs,
        accelerator="cpu",
        precision="64-true",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[
            Timer({"seconds": math.ceil(given["limit"])}),
            SwitchOptimizer(polish, epoch_switch=given["steps"]),
        ],
    )
    trainer.train()
    seconds = time.perf_counter() - clock
    xs, ts = np.meshgrid(x, t)
    points = torch.tensor(np.stack([xs.ravel(), ts.ravel()], 1))
    with torch.no_grad():
        u = solver.model(LabelTensor(points, ["x", "t"]).double()).numpy().reshape(xs.shape)
    np.savez(path, u=u, seconds=seconds)


if __name__ == "__main__":
    run(sys.argv[1])
