"""The focusing nonlinear Schroedinger equation: one bright soliton."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["NonlinearSchroedinger"]

t, x = pk.coords("t x")
psi = pk.field("psi", t, x, complex=True)


@pk.problem
class NonlinearSchroedinger(pk.ProblemClass):
    """i psi_t + psi_xx / 2 + |psi|^2 psi = 0 on [-L, L], a soliton of amplitude a and speed v.

    The field is complex: two coupled real ones, whose phase turns at every point while the modulus
    only moves. The soliton's own values are given at both ends, so it is the exact solution of
    this very problem, whatever L.

    Exact: a sech(a (x - v t)) exp(i (v x + (a^2 - v^2) t / 2)).

    Args:
        a: Amplitude.
        v: Speed.
        L: Half the length of the interval.
        T: Final time.
    """

    a: float = 1.0
    v: float = 1.0
    L: float = 5.0
    T: float = 1.0
    citation = (
        "V. E. Zakharov, A. B. Shabat: Exact theory of two-dimensional self-focusing and "
        "one-dimensional self-modulation of waves in nonlinear media. Sov. Phys. JETP 34 (1972) 62."
    )

    def declare(self) -> pk.PDESystem:
        """The equation; the soliton's own values at the start and at both ends."""
        soliton = self._soliton()
        residual = sp.I * psi.diff(t) + psi.diff(x, 2) / 2 + psi * sp.conjugate(psi) * psi
        return pk.PDESystem(
            [residual],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -self.L, self.L),
            conditions=[
                pk.Initial(psi, soliton.subs(t, 0)),
                pk.Dirichlet(psi, soliton.subs(x, -self.L), on=pk.boundary(x, "left")),
                pk.Dirichlet(psi, soliton.subs(x, self.L), on=pk.boundary(x, "right")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The bright soliton."""
        return {psi: self._soliton()}

    def _soliton(self) -> sp.Expr:
        phase = self.v * x + (self.a**2 - self.v**2) * t / 2
        return self.a / sp.cosh(self.a * (x - self.v * t)) * sp.exp(sp.I * phase)
