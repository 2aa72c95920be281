"""The nonlinear Schroedinger equation with the initial data of the first PINN paper."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["NonlinearSchroedingerBreather"]

t, x = pk.coords("t x")
psi = pk.field("psi", t, x, complex=True)


@pk.problem
class NonlinearSchroedingerBreather(pk.ProblemClass):
    """i psi_t + psi_xx / 2 + |psi|^2 psi = 0, periodic on [-5, 5], psi(0, x) = 2 sech(x).

    Two solitons on top of each other: the modulus focuses to a peak of 4 at t = pi/4. On the
    whole line the solution is known; on the ring it is not, since 2 sech(x) has a kink of 0.05
    at x = +-5, hence no `exact`. The public reference file is wrong by 1.8e-5 for that reason.

    Args:
        T: Final time.
    """

    T: float = 1.5707963267948966
    citation = (
        "M. Raissi, P. Perdikaris, G. E. Karniadakis: Physics-informed neural networks. "
        "J. Comput. Phys. 378 (2019) 686."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        residual = sp.I * psi.diff(t) + psi.diff(x, 2) / 2 + psi * sp.conjugate(psi) * psi
        return pk.PDESystem(
            [residual],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -5, 5),
            conditions=[pk.Initial(psi, 2 / sp.cosh(x)), pk.Periodic(psi, x)],
        )
