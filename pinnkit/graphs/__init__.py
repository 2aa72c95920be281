"""Sparse graphs: exact solves, contracting operators, networks built on them, data."""

from pinnkit.graphs.arcs import Arcs
from pinnkit.graphs.attention import AttentionEncoder, AttentionLayer
from pinnkit.graphs.baselines import GIN, EdgeFree, ImplicitGNN, count_parameters, matched
from pinnkit.graphs.linear_fixed_point import linear_fixed_point
from pinnkit.graphs.network import ConvergentGraphNetwork, Prior
from pinnkit.graphs.operator import (
    ContractionFactor,
    Operator,
    contracting_weights,
    eliminate_held,
)
from pinnkit.graphs.pore_networks import hagen_poiseuille, pore_network, read_statoil
from pinnkit.graphs.readout import Readout
from pinnkit.graphs.standardise import Standardiser
from pinnkit.graphs.tu_files import read_tu_file, stratified_folds

__all__ = [
    "GIN",
    "Arcs",
    "AttentionEncoder",
    "AttentionLayer",
    "ContractionFactor",
    "ConvergentGraphNetwork",
    "EdgeFree",
    "ImplicitGNN",
    "Operator",
    "Prior",
    "Readout",
    "Standardiser",
    "contracting_weights",
    "count_parameters",
    "eliminate_held",
    "hagen_poiseuille",
    "linear_fixed_point",
    "matched",
    "pore_network",
    "read_statoil",
    "read_tu_file",
    "stratified_folds",
]
