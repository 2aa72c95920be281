"""Training as published: Adam on the joint probability of grid values, data and equations.

In    the terms of a problem; grid values, precisions and mixtures as unknowns.
Out   `JointState`: advanced by single steps; the process' mean through the trained values.
Next  `SpectralMixtureGP(training=JointTraining())`. It is there to be compared with: conditioning on the
      equations by least squares needs one solve where this needs 1e5 to 3e6 steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.errors import DeclarationError
from pinnkit.gp.features import KernelBasis
from pinnkit.gp.gaussian_process import GaussianProcessApproximation, contract
from pinnkit.gp.kernels import GaussianMixture, SpectralMixture, StudentMixture
from pinnkit.gp.kronecker import kron_apply, toeplitz
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.scales import parameter_values
from pinnkit.solvers.base import Answer
from pinnkit.solvers.spectral_mixture_rows import Term

__all__ = ["JointState", "JointTraining"]


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """Adam on log N(U | 0, C) + b log N(data | U, 1/tau) + log N(0 | H, 1/v).

    U are the field's values on a grid, H the equations' residual there with derivatives K'' K^-1 U;
    the precisions tau and v and the weights, widths and frequencies of the mixtures are trained with
    U. No frequency is looked for: they start at linspace(0, 1, components) * fastest.

    Args:
        steps: Of Adam; reaching them ends as MAX_STEPS, for nothing says that it has converged.
        learning_rate: Of Adam.
        components: Of the mixture of every coordinate (paper: Q).
        fastest: Highest frequency at the start, cycles per unit (paper: F, tuned per problem).
        nodes: Grid points per coordinate.
        boundary_weight: b (paper: lambda_b).
        jitter: Added to the diagonal of every K.
    """

    steps: int = 100_000
    learning_rate: float = 0.01
    components: int = 30
    fastest: float = 20.0
    nodes: int = 400
    boundary_weight: float = 200.0
    jitter: float = 1e-6

    def __post_init__(self) -> None:
        least = {"steps": 1, "components": 1, "nodes": 4}
        faults = [
            f"{name} is at least {low}, not {getattr(self, name)!r}"
            for name, low in least.items()
            if not getattr(self, name) >= low
        ]
        faults += [
            f"{name} is positive, not {getattr(self, name)!r}"
            for name in ("learning_rate", "fastest", "boundary_weight", "jitter")
            if not getattr(self, name) > 0
        ]
        if faults:
            raise ValueError("JointTraining: " + "; ".join(faults))

    def refusal(self, nf: NormalForm) -> str | None:
        """Why the published training cannot take the problem; None if it can."""
        whole = all(len(nf.field_coords(u)) == len(nf.coords) for u in nf.fields)
        if len(nf.coords) > 2 or nf.periodic or not whole:
            return (
                "SpectralMixtureGP(training=...) handles one or two coordinates that are not periodic, "
                "all fields over all of them. Use SpectralMixtureGP()."
            )
        return None


class JointState:
    """The unknowns, the optimiser and the step. All tensors are float64 on one device."""

    def __init__(
        self,
        nf: NormalForm,
        terms: Sequence[Term],
        options: JointTraining,
        *,
        student: bool,
        device: torch.device,
    ) -> None:
        self.nf, self.terms, self.options, self.step = nf, list(terms), options, 0
        self.loss = math.nan
        n = options.nodes
        self.nodes = [
            torch.linspace(*nf.bounds[c], n, dtype=torch.float64, device=device) for c in nf.coords
        ]
        kind: type[SpectralMixture] = StudentMixture if student else GaussianMixture
        start = 2 * math.pi * options.fastest * torch.linspace(0, 1, options.components)
        weights = torch.full((options.components,), 1 / options.components, dtype=torch.float64)
        self.kernels = [
            [kind(start, 1.0, weights).to(device) for _ in nf.coords] for _ in nf.fields
        ]
        grid = [n] * len(nf.coords)
        zero = {"dtype": torch.float64, "device": device, "requires_grad": True}
        self.values = [torch.zeros(grid, **zero) for _ in nf.fields]
        self.log_precisions = torch.zeros(2 + len(terms), **zero)  # tau, v, then per observation
        guesses = list(parameter_values(nf).values())
        self.parameters = torch.tensor(guesses, **zero)
        factors = [k for row in self.kernels for k in row]
        plain = [p for k in factors for p in (k.log_weights, k.log_widths)]
        # The paper trains frequencies in cycles per unit, ours are in radians.
        self.optimiser = torch.optim.Adam(
            [
                {"params": [*self.values, self.log_precisions, self.parameters, *plain]},
                {
                    "params": [k.frequencies for k in factors],
                    "lr": 2 * math.pi * options.learning_rate,
                },
            ],
            lr=options.learning_rate,
        )
        self.slices = [self._slice(term) for term in self.terms]

    def state_dict(self) -> dict[str, Any]:
        tensors = [p.detach().clone() for g in self.optimiser.param_groups for p in g["params"]]
        return {"step": self.step, "tensors": tensors, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = [p for g in self.optimiser.param_groups for p in g["params"]]
        with torch.no_grad():
            for p, saved in zip(own, state["tensors"], strict=True):
                p.copy_(saved)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])

    def advance(self) -> Mapping[str, float]:
        """One step of Adam; minus the logarithm of the joint probability."""
        self.optimiser.zero_grad()
        loss = self._minus_log_joint()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for value, p in zip(self.parameters, self.nf.parameters, strict=True):
                low, high = getattr(p, "bounds", None) or (None, None)
                value.clamp_(low, high) if (low, high) != (None, None) else None
        self.step += 1
        self.loss = float(loss.detach())
        return {"minus_log_joint": self.loss}

    def answer(self) -> Answer:
        """k(x, X) K^-1 U, without a covariance: the values are an estimate, not a posterior."""
        bases, coefficients = [], []
        with torch.no_grad():
            for row, values in zip(self.kernels, self.values, strict=True):
                triangles = self._triangles(row)
                own = []
                for k, x, lower in zip(row, self.nodes, triangles, strict=True):
                    frozen = type(k)(k.frequencies.detach(), k.widths, k.weights)
                    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
                    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
                    own.append((KernelBasis(frozen.requires_grad_(False), x, inverse.T), inverse))
                bases.append([basis for basis, _ in own])
                coefficients.append(kron_apply([inverse for _, inverse in own], values.detach()))
        numbers = {
            p: (float(v), None)
            for p, v in zip(self.nf.parameters, self.parameters.detach(), strict=True)
        }
        size = sum(p.numel() for g in self.optimiser.param_groups for p in g["params"])
        return Answer(
            GaussianProcessApproximation(bases, coefficients),
            parameters=numbers,
            stats={"parameters": size, "points": self.values[0].numel(), "log_joint": -self.loss},
        )

    def _minus_log_joint(self) -> Tensor:
        grams = [self._triangles(row) for row in self.kernels]
        total = self._log_prior(grams)
        log_tau, log_v = self.log_precisions[:2].unbind()
        numbers = list(self.parameters.unbind())
        for i, (term, place) in enumerate(zip(self.terms, self.slices, strict=True)):
            if term.kind == "observation":
                assert term.points is not None
                points = term.points.to(self.nodes[0])
                leaves = [self._scattered(grams, points, f, alpha) for f, alpha in term.wanted]
            else:
                points, mask = place
                leaves = [self._on_grid(grams, term, f, alpha)[mask] for f, alpha in term.wanted]
            residual, _ = term.linearise(points, numbers, leaves)
            weight = self.options.boundary_weight if term.kind == "condition" else 1.0
            log_precision = log_v if term.kind == "equation" else log_tau
            if term.kind == "observation":
                known = term.noise is not None
                log_precision = self.log_precisions[2 + i]
                if known:
                    log_precision = log_precision.new_tensor(-2 * math.log(term.noise or 1.0))
            square = log_precision.exp() * residual.square().sum()
            total = total + 0.5 * weight * (len(residual) * log_precision - square)
        return -total

    def _log_prior(self, grams: Sequence[Sequence[Tensor]]) -> Tensor:
        """log N(U | 0, K_1 (x) ... (x) K_d) up to a constant, over all fields."""
        total = self.values[0].new_zeros(())
        for triangles, values in zip(grams, self.values, strict=True):
            white = values
            for k, lower in enumerate(triangles):
                white = _along(
                    white, k, lambda v, g=lower: torch.linalg.solve_triangular(g, v, upper=False)
                )
                logs = lower.diagonal().log().sum()
                total = total - values.numel() / len(lower) * logs
            total = total - 0.5 * white.square().sum()
        return total

    def _triangles(self, row: Sequence[SpectralMixture]) -> list[Tensor]:
        """Cholesky factors; NaN where a matrix is not positive, which ends the training as diverged."""
        out = []
        for k, (kernel, x) in enumerate(zip(row, self.nodes, strict=True)):
            identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
            gram = self._matrix(kernel, k) + self.options.jitter * identity
            lower, failed = torch.linalg.cholesky_ex(gram)
            out.append(lower * torch.nan if bool(failed) else lower)
        return out

    def _matrix(self, kernel: SpectralMixture, k: int, order: int = 0) -> Tensor:
        """K^(order) on the nodes, from its first column: they are equidistant."""
        x = self.nodes[k]
        column = kernel.column(len(x), float(x[1] - x[0]), order)
        return toeplitz(column, odd=order % 2 == 1)

    def _on_grid(
        self,
        grams: Sequence[Sequence[Tensor]],
        term: Term,
        index: int,
        alpha: tuple[int, ...],
    ) -> Tensor:
        """A derivative at the nodes of the term's side, flattened: K^(a) K^-1 along each coordinate."""
        grid = self.values[index]
        for k, order in enumerate(alpha):
            if order:
                rows, lower = self._matrix(self.kernels[index][k], k, order), grams[index][k]
                grid = _along(grid, k, lambda v, r=rows, g=lower: r @ torch.cholesky_solve(v, g))
        if term.face is not None:
            k = self.nf.coords.index(term.face.coord)
            end = 0 if term.face.side == "left" else grid.shape[k] - 1
            grid = grid.narrow(k, end, 1)
        return grid.flatten()

    def _scattered(
        self,
        grams: Sequence[Sequence[Tensor]],
        points: Tensor,
        index: int,
        alpha: tuple[int, ...],
    ) -> Tensor:
        tables = []
        for k, order in enumerate(alpha):
            rows = self.kernels[index][k](points[:, k], self.nodes[k], order)
            tables.append(torch.cholesky_solve(rows.T, grams[index][k]).T)
        return contract(tables, self.values[index])

    def _slice(self, term: Term) -> tuple[Tensor, Any]:
        """The nodes a term holds at, and which of its side's they are."""
        axes = list(self.nodes)
        if term.face is not None:
            k = self.nf.coords.index(term.face.coord)
            axes[k] = axes[k].new_tensor([term.face.value])
        mesh = torch.meshgrid(*axes, indexing="ij")
        points = torch.stack([m.flatten() for m in mesh], dim=1)
        if term.face is None or term.face.where == sp.true:
            return points, slice(None)
        inside = compile_expressions([term.face.where], self.nf.coords)(points.unbind(1))[0]  # type: ignore[list-item]
        if not bool(inside.any()):
            raise DeclarationError(
                f"{term.label}: no node of the grid lies where `where={term.face.where}` holds; "
                "take more nodes"
            )
        return points[inside], inside


def _along(grid: Tensor, k: int, change: Any) -> Tensor:
    """A linear map of one coordinate's vectors applied to a whole grid."""
    moved = torch.movedim(grid, k, 0)
    flat = change(moved.reshape(moved.shape[0], -1))
    return torch.movedim(flat.reshape(flat.shape[0], *moved.shape[1:]), 0, k)
