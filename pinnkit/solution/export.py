"""Solutions for other programs: xarray datasets, netCDF, VTK.

In    a `Solution` and the grid wanted.
Out   an xarray Dataset with units, or files.
Next  ParaView, xarray, the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from pinnkit.errors import MissingDependencyError, UnsupportedProblemError
from pinnkit.solution.arguments import grid_axes
from pinnkit.solution.evaluate import field_name, user_fields

if TYPE_CHECKING:
    from pinnkit.solution.solution import Solution

__all__ = ["to_netcdf", "to_vtk", "to_xarray"]


def to_xarray(sol: Solution, sizes: Mapping[str, Any]) -> Any:
    """A Dataset; each field has the dimensions it depends on, `units` where they were declared."""
    try:
        import xarray
    except ImportError as fault:
        raise MissingDependencyError("to_xarray needs the package xarray") from fault
    nf = sol.normal_form
    axes = grid_axes(nf, sizes)
    variables = {}
    for f in user_fields(nf):
        dims = [str(c) for c in nf.coords if c in f.args]
        grids = np.meshgrid(*(axes[d] for d in dims), indexing="ij")
        keywords: dict[str, Any] = dict(zip(dims, grids, strict=True))
        values = sol[f](**keywords)
        variables[field_name(f)] = (dims, values, _attributes(f) | {"long_name": str(f)})
    coords = {str(c): ([str(c)], axes[str(c)], _attributes(c)) for c in nf.coords}
    attributes: dict[str, Any] = {
        "status": sol.status.name,
        "evidence": sol.evidence.name,
        "solver": repr(sol.solver),
        "seconds": sol.stats.seconds,
    }
    if sol.error_estimate is not None:
        attributes["error_estimate"] = sol.error_estimate
    return xarray.Dataset(variables, coords=coords, attrs=attributes)


def to_netcdf(sol: Solution, path: str | PathLike[str], sizes: Mapping[str, Any]) -> None:
    """A netCDF 3 file; complex fields, which the format lacks, become `name_real` and `name_imag`."""
    data = to_xarray(sol, sizes)
    for name in list(data.data_vars):
        if np.iscomplexobj(data[name].values):
            data[f"{name}_real"], data[f"{name}_imag"] = data[name].real, data[name].imag
            data = data.drop_vars(name)
    data.to_netcdf(path, engine="scipy")


def to_vtk(sol: Solution, path: str | PathLike[str], sizes: Mapping[str, Any]) -> None:
    """Legacy VTK, rectilinear grid, binary.

    Two or three space coordinates. Steady: the file `path`; evolution: one file per time,
    `name_0000.vtk`, `name_0001.vtk`, ... (11 times unless the time is among `sizes`).
    """
    nf = sol.normal_form
    if len(nf.space) not in (2, 3):
        raise UnsupportedProblemError(
            f"VTK files hold 2-D and 3-D grids; this problem has {len(nf.space)} space coordinates. "
            "Use sol.to_xarray()"
        )
    axes = grid_axes(nf, ({} if nf.time is None else {str(nf.time): 11}) | dict(sizes))
    target = Path(path)
    if nf.time is None:
        target.write_bytes(_vtk(sol, axes, None))
        return
    for i, t in enumerate(axes[str(nf.time)]):
        numbered = target.with_name(f"{target.stem}_{i:04d}{target.suffix or '.vtk'}")
        numbered.write_bytes(_vtk(sol, axes, float(t)))


def _vtk(sol: Solution, axes: Mapping[str, np.ndarray], time: float | None) -> bytes:
    nf = sol.normal_form
    space = [str(c) for c in nf.space]
    nodes = [axes[s] for s in space] + [np.zeros(1)] * (3 - len(space))
    # VTK counts the first coordinate fastest.
    grids = [g.ravel(order="F") for g in np.meshgrid(*(axes[s] for s in space), indexing="ij")]
    keywords: dict[str, Any] = dict(zip(space, grids, strict=True))
    if time is not None:
        keywords[str(nf.time)] = time
    title = "pinnkit" if time is None else f"pinnkit {nf.time} = {time:g}"
    parts = [
        f"# vtk DataFile Version 3.0\n{title}\nBINARY\nDATASET RECTILINEAR_GRID\n".encode(),
        f"DIMENSIONS {' '.join(str(len(n)) for n in nodes)}\n".encode(),
    ]
    for label, values in zip("XYZ", nodes, strict=True):
        parts += [f"{label}_COORDINATES {len(values)} double\n".encode(), _big(values), b"\n"]
    parts.append(f"POINT_DATA {len(grids[0])}\n".encode())
    for f in user_fields(nf):
        values = np.broadcast_to(sol[f](**keywords), grids[0].shape)
        columns = {field_name(f): values}
        if np.iscomplexobj(values):
            name = field_name(f)
            columns = {f"{name}_real": np.real(values), f"{name}_imag": np.imag(values)}
        for name, column in columns.items():
            parts += [
                f"SCALARS {name} double 1\nLOOKUP_TABLE default\n".encode(),
                _big(column),
                b"\n",
            ]
    return b"".join(parts)


def _big(values: np.ndarray) -> bytes:
    """Legacy VTK is big-endian."""
    return np.ascontiguousarray(values, dtype=">f8").tobytes()


def _attributes(symbol: sp.Expr) -> dict[str, Any]:
    unit = getattr(symbol, "unit", None)  # plain sympy symbols have none
    return {} if unit is None else {"units": str(unit)}
