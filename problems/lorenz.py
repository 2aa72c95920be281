"""Lorenz' system: three ordinary differential equations, chaotic."""

from __future__ import annotations

import pinnkit as pk

__all__ = ["Lorenz"]

t = pk.coords("t")
x, y, z = pk.field("x", t), pk.field("y", t), pk.field("z", t)


@pk.problem
class Lorenz(pk.ProblemClass):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z, from (1, 1, 1).

    Errors grow like exp(0.9 t): by t = 20 one part in 1e8 of the start has become the answer's
    size. Short windows and a tight tolerance in each are the only way through.

    Args:
        sigma: Prandtl number.
        rho: Rayleigh number over its critical value.
        beta: Geometry of the roll.
        T: Final time.
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8.0 / 3.0
    T: float = 20.0
    citation = "E. N. Lorenz: Deterministic nonperiodic flow. J. Atmos. Sci. 20 (1963) 130."

    def declare(self) -> pk.PDESystem:
        """The three equations and the start."""
        return pk.PDESystem(
            [
                x.diff(t) - self.sigma * (y - x),
                y.diff(t) - x * (self.rho - z) + y,
                z.diff(t) - x * y + self.beta * z,
            ],
            domain=pk.Interval(t, 0, self.T),
            conditions=[pk.Initial(x, 1), pk.Initial(y, 1), pk.Initial(z, 1)],
        )
