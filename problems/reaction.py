"""Logistic growth at every point of a line, a published failure of plain PINNs."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Reaction"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Reaction(pk.ProblemClass):
    """u_t = rho u (1 - u) on [0, 2 pi], u(0, x) = exp(-(x - pi)^2 / (2 (pi/4)^2)).

    An ordinary differential equation at every x. u = 0 and u = 1 both satisfy the equation, and a
    network trained on all times at once likes to leave the unstable one too early or too late.
    No derivative in x occurs, so no condition in x is due (the published set-up adds periodicity,
    which the solution has anyway).

    Exact: h e^(rho t) / (h e^(rho t) + 1 - h), h the initial profile.

    Args:
        rho: Growth rate.
        T: Final time.
    """

    rho: float = 5.0
    T: float = 1.0
    citation = (
        "A. Krishnapriyan, A. Gholami, S. Zhe, R. Kirby, M. W. Mahoney: Characterizing possible "
        "failure modes in physics-informed neural networks. NeurIPS 2021, arXiv:2109.01050."
    )

    def declare(self) -> pk.PDESystem:
        """The equation and the initial profile."""
        return pk.PDESystem(
            [u.diff(t) - self.rho * u * (1 - u)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[pk.Initial(u, _profile())],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The logistic curve through the initial value at each x."""
        grown = _profile() * sp.exp(self.rho * t)
        return {u: grown / (grown + 1 - _profile())}


def _profile() -> sp.Expr:
    """A Gaussian in the middle, of standard deviation pi/4."""
    return sp.exp(-((x - sp.pi) ** 2) / (2 * (sp.pi / 4) ** 2))
