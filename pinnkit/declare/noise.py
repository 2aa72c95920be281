"""How noise enters a stochastic differential equation: its structure, and its calculus.

In    nothing.
Out   `Noise` and `Calculus`.
Next  `ir.stochastic_form` recognises the structure; the integrators of `neural_de` depend on it.
"""

from __future__ import annotations

import enum

__all__ = ["Calculus", "Noise"]


class Noise(enum.Enum):
    """The structure of g in dz = f dt + g dW, z of H components, W of M.

    An integrator may treat a structure as a more general one, never as a more special one: the
    value is what makes each special.
    """

    ADDITIVE = "g does not depend on the state"
    DIAGONAL = "component i has its own W_i, and its coefficient depends on z_i and t alone"
    SCALAR = "one W of a single component drives everything"
    GENERAL = "none of these: several W_k may drive a component, or g_i depends on other components"

    @property
    def commutes(self) -> bool:
        """True where all columns g_k satisfy (D g_k) g_l = (D g_l) g_k: no Levy areas are needed."""
        return self is not Noise.GENERAL


class Calculus(enum.Enum):
    """What g dW means: the limit of sums with g at the left end (Ito) or the mid-point (Stratonovich)."""

    ITO = "ito"
    STRATONOVICH = "stratonovich"
