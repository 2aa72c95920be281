"""Layers defined by an equation: fixed points, roots, least squares, linear systems."""

from pinnkit.implicit.backward import Exact, JacobianFree, Phantom, Unrolled
from pinnkit.implicit.contraction import BoundedNorm, Contraction, ContractiveCell, certify
from pinnkit.implicit.iteration import AbstractMethod
from pinnkit.implicit.krylov import CG, GMRES
from pinnkit.implicit.layers import differentiable, fixed_point, least_squares, root
from pinnkit.implicit.levenberg_marquardt import LevenbergMarquardt
from pinnkit.implicit.linear import Direct
from pinnkit.implicit.lipschitz import Affine, Elementwise, layers_of, lipschitz
from pinnkit.implicit.lsmr import LSMR
from pinnkit.implicit.maps import Anderson, Picard
from pinnkit.implicit.newton import Broyden, Newton
from pinnkit.implicit.preconditioners import Factors, Jacobi
from pinnkit.implicit.record import ConvergenceError, Record
from pinnkit.implicit.sparse_jacobian import SparseDirect
from pinnkit.implicit.systems import linear_solve

__all__ = [
    "CG",
    "GMRES",
    "LSMR",
    "AbstractMethod",
    "Affine",
    "Anderson",
    "BoundedNorm",
    "Broyden",
    "Contraction",
    "ContractiveCell",
    "ConvergenceError",
    "Direct",
    "Elementwise",
    "Exact",
    "Factors",
    "Jacobi",
    "JacobianFree",
    "LevenbergMarquardt",
    "Newton",
    "Phantom",
    "Picard",
    "Record",
    "SparseDirect",
    "Unrolled",
    "certify",
    "differentiable",
    "fixed_point",
    "layers_of",
    "least_squares",
    "linear_solve",
    "lipschitz",
    "root",
]
