"""Implicit Runge-Kutta tableaux: Radau IIA and Lobatto IIIC, both L-stable and stiffly accurate.

In    a number of stages.
Out   `Tableau`: nodes, the eigenvectors of the inverse of A, and the polynomial behind dense output.
Next  `implicit` integrates with them.

Hairer & Wanner, Solving Ordinary Differential Equations II, IV.5 and IV.8. With s stages Radau IIA
has order 2s - 1 at the ends of steps and s + 1 inside, Lobatto IIIC 2s - 2 and s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = ["Tableau", "lobatto_tableau", "radau_tableau"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Tableau:
    """Y_i = y + h sum_j A_ij Y'_j with A invertible, so h Y' = W (Y - y), W = A^-1 = T diag(eig) T^-1.

    Complex eigenvalues come in pairs, of which `solved` lists one each. `dense` are the nodes in
    [0, 1] of the polynomial through the step: its first is 0 (the value at the start of the step),
    the others are stages number `kept`. `legendre` takes values at `dense` to Legendre coefficients.
    """

    name: str
    c: Array
    inverse: Array
    eigenvalues: Array
    vectors: Array
    inverse_vectors: Array
    solved: tuple[int, ...]
    paired: tuple[int, ...]
    dense: Array
    kept: tuple[int, ...]
    legendre: Array

    @property
    def stages(self) -> int:
        return len(self.c)


@cache
def radau_tableau(stages: int) -> Tableau:
    """Radau IIA: collocation at the zeros of d^(s-1)/dx^(s-1) [x^(s-1) (x-1)^s]."""
    # Equivalently the Legendre difference P_s - P_(s-1) on [-1, 1], which vanishes at 1.
    series = np.zeros(stages + 1)
    series[stages], series[stages - 1] = 1.0, -1.0
    roots = np.sort(np.polynomial.legendre.legroots(series).real)
    for _ in range(3):  # polish: companion eigenvalues lose digits near the double-looking end
        value = np.polynomial.legendre.legval(roots, series)
        slope = np.polynomial.legendre.legval(roots, np.polynomial.legendre.legder(series))
        roots -= value / slope
    c = (roots + 1) / 2
    c[-1] = 1.0
    powers = np.arange(1, stages + 1)
    a = (c[:, None] ** powers / powers) @ np.linalg.inv(c[:, None] ** (powers - 1))
    return _tableau("Radau IIA", c, a, np.concatenate([[0.0], c]), tuple(range(stages)))


@cache
def lobatto_tableau(stages: int) -> Tableau:
    """Lobatto IIIC: a_i1 = b_1, the rest from sum_j a_ij c_j^(q-1) = c_i^q / q, q < s."""
    series = np.zeros(stages)
    series[-1] = 1.0
    inner = np.sort(np.polynomial.legendre.legroots(np.polynomial.legendre.legder(series)).real)
    c = (np.concatenate([[-1.0], inner, [1.0]]) + 1) / 2
    powers = np.arange(1, stages + 1)
    b = np.linalg.solve((c[:, None] ** (powers - 1)).T, 1.0 / powers)
    few = powers[:-1]
    a = np.empty((stages, stages))
    a[:, 0] = b[0]
    right = c[:, None] ** few / few - b[0] * c[0] ** (few - 1)
    a[:, 1:] = right @ np.linalg.inv(c[1:, None] ** (few - 1))
    # Stage 1 sits at the start of the step and differs from it by the local error only; dense
    # output takes the value itself.
    return _tableau("Lobatto IIIC", c, a, c.copy(), tuple(range(1, stages)))


def _tableau(name: str, c: Array, a: Array, dense: Array, kept: tuple[int, ...]) -> Tableau:
    inverse = np.linalg.inv(a)
    eigenvalues, vectors = np.linalg.eig(inverse)
    eigenvalues = eigenvalues.astype(complex)
    vectors = vectors.astype(complex)
    solved, paired = [], []
    for i, value in enumerate(eigenvalues):
        if abs(value.imag) < 1e-9 * abs(value):
            solved.append(i)
            paired.append(i)
        elif value.imag > 0:
            solved.append(i)
            paired.append(int(np.argmin(abs(eigenvalues - value.conjugate()))))
    degree = len(dense) - 1
    vandermonde = np.polynomial.legendre.legvander(2 * dense - 1, degree)
    return Tableau(
        name=name,
        c=c,
        inverse=inverse,
        eigenvalues=eigenvalues,
        vectors=vectors,
        inverse_vectors=np.linalg.inv(vectors),
        solved=tuple(solved),
        paired=tuple(paired),
        dense=dense,
        kept=kept,
        legendre=np.linalg.inv(vandermonde),
    )
