"""The initial flow of the Navier-Stokes problems on the torus: a fixed sum of ten vortices.

In    the coordinates x and y of [0, 2 pi]^2.
Out   streamfunction, velocity and vorticity at the start, as expressions.
Next  `navier_stokes_streamfunction`, `navier_stokes_vorticity` and `navier_stokes_pressure`.

The published initial field is a random draw that is not available as a file. This one was drawn once
(normal amplitudes of the wave vectors with |k|^2 <= 5, uniform phases, seed 0), scaled to a root mean
square speed of 1 and rounded; the numbers below define it. Its vorticity has rms 1.94, maximum 4.9.
"""

from __future__ import annotations

import sympy as sp

__all__ = ["CITATION", "start_streamfunction", "start_velocity", "start_vorticity"]

CITATION = (
    "S. Wang, S. Sankaran, P. Perdikaris: Respecting causality for training physics-informed "
    "neural networks. Comput. Methods Appl. Mech. Engrg. 421 (2024) 116813, arXiv:2203.07404."
)

# Wave numbers along x and y, amplitude of the vorticity, phase.
_MODES = (
    (1, 0, "0.37", "5.13"),
    (0, 1, "0.37", "0.02"),
    (1, 1, "0.81", "5.39"),
    (1, -1, "0.35", "0.21"),
    (2, 0, "0.72", "4.58"),
    (0, 2, "0.57", "1.10"),
    (2, 1, "1.38", "5.42"),
    (1, 2, "1.07", "3.40"),
    (2, -1, "0.86", "1.88"),
    (1, -2, "1.35", "2.66"),
)


def start_vorticity(x: sp.Symbol, y: sp.Symbol) -> sp.Expr:
    """w(0) = sum a cos(k x + l y + phase)."""
    return sp.Add(*(a * sp.cos(angle) for _, _, a, angle in _modes(x, y)))


def start_streamfunction(x: sp.Symbol, y: sp.Symbol) -> sp.Expr:
    """psi(0) of mean zero, -lap psi = w."""
    return sp.Add(*(a / (k**2 + m**2) * sp.cos(angle) for k, m, a, angle in _modes(x, y)))


def start_velocity(x: sp.Symbol, y: sp.Symbol) -> tuple[sp.Expr, sp.Expr]:
    """(u, v)(0) = (psi_y, -psi_x): free of divergence, of mean zero."""
    psi = start_streamfunction(x, y)
    return sp.diff(psi, y), -sp.diff(psi, x)


def _modes(x: sp.Symbol, y: sp.Symbol) -> list[tuple[int, int, sp.Float, sp.Expr]]:
    return [
        (k, m, sp.Float(amplitude), k * x + m * y + sp.Float(phase))
        for k, m, amplitude, phase in _MODES
    ]
