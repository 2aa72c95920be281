"""Stochastic systems as JSON, and back through the whitelist of `ir.expression_tree`.

In    an `SDESystem`.
Out   dicts and lists for json.dumps, and the system again, without its series.
Next  `solution.series_files` stores it beside the trained weights; checkpoints compare fingerprints.

Series are not written: they may be large, or not ours to copy. A readout is a network of its own, kept
with the weights.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from pinnkit.declare.sde_system import SDESystem
from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.series_target import SeriesTarget
from pinnkit.ir.expression_tree import from_tree, to_tree

__all__ = ["sde_system_from_tree", "sde_system_to_tree", "series_fingerprint"]

_VERSION = 1


def sde_system_to_tree(system: SDESystem) -> dict[str, Any]:
    """The declaration as plain data; ValueError where it holds what cannot be saved."""
    initial = None
    if system.initial is not None:
        initial = [[to_tree(z), to_tree(value)] for z, value in system.initial.items()]
    return {
        "version": _VERSION,
        "equations": [to_tree(e) for e in system.equations],
        "initial": initial,
        "calculus": system.calculus.value,
    }


def sde_system_from_tree(tree: Any) -> SDESystem:
    """The system of a tree, declared (and so validated) anew; ValueError if it is none."""
    try:
        if tree["version"] != _VERSION:
            raise ValueError(f"this file has version {tree['version']!r}, known is {_VERSION}")
        initial = tree["initial"]
        return SDESystem(
            [from_tree(e) for e in tree["equations"]],
            initial=None if initial is None else {from_tree(z): from_tree(v) for z, v in initial},
            calculus=str(tree["calculus"]),
        )
    except ValueError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"not a saved system: {error!r}") from error


def series_fingerprint(system: SDESystem | SeriesTarget) -> str:
    """A hash of what is being learned, the series included; equal in every process."""
    if isinstance(system, SeriesTarget):
        parts = [f"target {system.dim}"]
    else:
        form = system.normal_form
        parts = [*map(str, system.equations), str(system.initial), system.calculus.value]
        parts += [f"{n} of {n.inputs} {form.shapes[n]}" for n in form.neurals]
        parts += [f"{z} {z.dim}" for z in form.processes]
    digest = hashlib.sha256("\n".join(parts).encode())
    if system.data is not None:
        for array in _arrays(system.data):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _arrays(data: IrregularSeries) -> list[np.ndarray]:
    found = [*data.times, *data.values]
    if data.label_index is not None:
        found.append(data.label_index.astype(np.int64))
    if data.targets is not None:
        found += list(data.targets) if isinstance(data.targets, tuple) else [data.targets]
    return found
