"""Diffusion and sorption with a start that varies in space and an inlet that varies in time."""

from __future__ import annotations

import math

import sympy as sp

import pinnkit as pk

from .diffusion_sorption import DiffusionSorption, t, u, x

__all__ = ["DiffusionSorptionInflow"]

u0 = pk.given("u0", x)
inlet = pk.given("inlet", t)


@pk.problem
class DiffusionSorptionInflow(pk.FamilyClass):
    """`DiffusionSorption` with u(0, x) = u0(x) and u(t, 0) = inlet(t), both random functions.

    Start and inlet are exp of Gaussian fields, hence positive: u0 around 0.1 with a correlation length
    of 0.2, the inlet around 1 with one of a fifth of the time. The family of `DiffusionSorption` has one
    number to vary, and three modes of its solutions reach 6e-5; here a basis of that kind is not enough.

    Args:
        start: Median of u0.
        start_spread: Standard deviation of log u0.
        inlet_spread: Standard deviation of log inlet.
        T: Final time, days.
    """

    start: float = 0.1
    start_spread: float = 0.4
    inlet_spread: float = 0.2
    T: float = 500.0
    citation = DiffusionSorption.citation

    def declare(self) -> pk.PDEFamily:
        """The equation and outflow of `DiffusionSorption` between other data."""
        plain = DiffusionSorption(T=self.T).system.system
        outflow = plain.conditions[-1]
        system = plain.remake(
            conditions=[
                pk.Initial(u, u0),
                pk.Dirichlet(u, inlet, on=pk.boundary(x, "left")),
                outflow,
            ]
        )
        start = pk.GaussianField(
            length=0.2, mean=math.log(self.start), std=self.start_spread, transform=sp.exp
        )
        supply = pk.GaussianField(length=self.T / 5, std=self.inlet_spread, transform=sp.exp)
        # As in `DiffusionSorption`, the corners are meant.
        return pk.PDEFamily.without_warnings(system, {u0: start, inlet: supply})
