"""Diffusion of a pollutant in ground water, held back by sorption: the family of PDEBench."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["DiffusionSorption"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)
u0 = pk.given("u0")


@pk.problem
class DiffusionSorption(pk.FamilyClass):
    """u_t = D/R(u) u_xx on [0, 1], u(0, x) = u0, u(t, 0) = 1, D u_x(t, 1) = -u(t, 1), u0 ~ U(0, most).

    R(u) = 1 + (1 - phi)/phi rho k n_f u^(n_f - 1) is the retardation of Freundlich's isotherm: it grows
    without bound as u -> 0, and is evaluated at max(u, 0) + eps, as in the published data. The uniform
    start contradicts both ends, so that two layers of width sqrt(D t/R) leave them; the outflow takes the
    value at x = 1 down at once. Written R(u) u_t = D u_xx the same equation has a slope of 1e6 in u near
    0, and where trial states cross 0 in front of the layers (u0 below 5e-3) no Newton iteration survives.

    The sign at x = 1 is that of the published data; the paper prints u(t, 1) = D u_x(t, 1). The data were
    made with cell-centred differences on 1024 cells and the value 1 in the ghost cell, half a cell outside.

    Args:
        D: Effective diffusivity, m^2/day.
        porosity: phi.
        density: Of the bulk, rho.
        k: Freundlich's parameter.
        n_f: Freundlich's exponent.
        eps: Added to u inside the power.
        most: Largest initial value.
        T: Final time, days.
    """

    D: float = 5e-4
    porosity: float = 0.29
    density: float = 2880.0
    k: float = 3.5e-4
    n_f: float = 0.874
    eps: float = 1e-6
    most: float = 0.2
    T: float = 500.0
    citation = (
        "M. Takamoto, T. Praditia, R. Leiteritz, D. MacKinlay, F. Alesiani, D. Pflueger, M. Niepert: "
        "PDEBench. NeurIPS 2022 Datasets and Benchmarks, arXiv:2210.07182."
    )

    def retardation(self) -> sp.Expr:
        """R(u)."""
        factor = (1 - self.porosity) / self.porosity * self.density * self.k * self.n_f
        return 1 + factor * (sp.Max(u, 0) + self.eps) ** (self.n_f - 1)

    def declare(self) -> pk.PDEFamily:
        """The equation, the uniform start, the inlet and the outflow."""
        system = pk.PDESystem(
            [u.diff(t) - self.D / self.retardation() * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, u0),
                pk.Dirichlet(u, 1, on=pk.boundary(x, "left")),
                pk.Robin(u + self.D * pk.dn(u), on=pk.boundary(x, "right")),
            ],
        )
        # The corner is meant: nobody needs to be warned of it.
        return pk.PDEFamily.without_warnings(system, {u0: pk.Uniform(0, self.most)})
