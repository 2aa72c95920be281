"""Van der Pol's oscillator: a limit cycle, stiff for large mu."""

from __future__ import annotations

import pinnkit as pk

__all__ = ["VanDerPol"]

t = pk.coords("t")
y = pk.field("y", t)


@pk.problem
class VanDerPol(pk.ProblemClass):
    """y'' - mu (1 - y^2) y' + y = 0, y(0) = 2, y'(0) = 0.

    Every solution runs into one cycle of period near 2 pi for small mu; for large mu the cycle
    creeps for a time of order mu and then jumps within 1/mu.

    Args:
        mu: Strength of the nonlinear damping.
        T: Final time.
    """

    mu: float = 1.0
    T: float = 10.0
    citation = 'B. van der Pol: On "relaxation-oscillations". Phil. Mag. 2 (1926) 978.'

    def declare(self) -> pk.PDESystem:
        """The equation of second order and its start."""
        return pk.PDESystem(
            [y.diff(t, 2) - self.mu * (1 - y**2) * y.diff(t) + y],
            domain=pk.Interval(t, 0, self.T),
            conditions=[pk.Initial(y, 2), pk.Initial(y.diff(t), 0)],
        )
