"""The Taylor-Green vortex: incompressible flow with an exact solution."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["TaylorGreen"]

t, x, y = pk.coords("t x y")
u, v, p = pk.field("u v p", t, x, y)


@pk.problem
class TaylorGreen(pk.ProblemClass):
    """u_t + u u_x + v u_y + p_x = lap u / Re, likewise v, u_x + v_y = 0, periodic on [0, 2 pi]^2.

    A square lattice of vortices, carried by the uniform flow (U, V). At rest (U = V = 0) the
    pressure balances the inertia exactly and the vortices only decay; carried along, every term of
    the equations counts. The pressure is fixed by a gauge. For checking solvers, not for racing
    them: two wave numbers are all there is.

    Exact, with X = x - U t, Y = y - V t: u = U - cos(X) sin(Y) exp(-2 t / Re),
    v = V + sin(X) cos(Y) exp(-2 t / Re), p = -(cos(2 X) + cos(2 Y)) exp(-4 t / Re) / 4.

    Args:
        Re: Reynolds number, with unit speed and length 1 (the box has 2 pi).
        U: Uniform flow along x.
        V: Uniform flow along y.
        T: Final time.
    """

    Re: float = 100.0
    U: float = 1.0
    V: float = 0.5
    T: float = 1.0
    citation = (
        "G. I. Taylor, A. E. Green: Mechanism of the production of small eddies from large ones. "
        "Proc. R. Soc. Lond. A 158 (1937) 499."
    )

    def declare(self) -> pk.PDESystem:
        """Momentum, continuity, the vortices, the gauge."""
        start = {f: expr.subs(t, 0) for f, expr in self.exact().items()}

        def momentum(f: sp.Expr) -> sp.Expr:
            return f.diff(t) + u * f.diff(x) + v * f.diff(y) - pk.laplacian(f) / self.Re

        return pk.PDESystem(
            [
                momentum(u) + p.diff(x),
                momentum(v) + p.diff(y),
                u.diff(x) + v.diff(y),
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[
                pk.Initial(u, start[u]),
                pk.Initial(v, start[v]),
                *(pk.Periodic(f, axis) for f in (u, v, p) for axis in (x, y)),
                pk.Gauge(p, mean=0),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The decaying lattice, carried along."""
        a, b, decay = x - self.U * t, y - self.V * t, sp.exp(-2 * t / self.Re)
        return {
            u: self.U - sp.cos(a) * sp.sin(b) * decay,
            v: self.V + sp.sin(a) * sp.cos(b) * decay,
            p: -(sp.cos(2 * a) + sp.cos(2 * b)) * decay**2 / 4,
        }
