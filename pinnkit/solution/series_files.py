"""Save and load models of series: JSON for what is said, tensors for what is trained, nothing executable.

In    a `SeriesSolution`, or a `.pinn` file.
Out   the file (written atomically), or the solution; its series are not part of it.
Next  `sol.save(path)`, `pk.load(path)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import nn

from pinnkit.declare.neural_equations import NeuralCDE, UnconstrainedSDE
from pinnkit.declare.problem_class import ProblemClass
from pinnkit.declare.series import Normalisation
from pinnkit.declare.series_target import SeriesTarget
from pinnkit.declare.stable_sde import GeometricSDE, LangevinSDE, LinearNoiseSDE
from pinnkit.errors import Status
from pinnkit.ir.stochastic_tree import sde_system_from_tree, sde_system_to_tree
from pinnkit.lower.stochastic import StochasticModule, Units
from pinnkit.neural_de import (
    Direct,
    DormandPrince,
    EulerMaruyama,
    Milstein,
    Recompute,
    StochasticHeun,
)
from pinnkit.neural_de.baselines import GatedRecurrentNetwork
from pinnkit.nn import describe, rebuild
from pinnkit.solution import files
from pinnkit.solution.series_model import SeriesModel, Task
from pinnkit.solution.series_recurrent import RecurrentModel
from pinnkit.solution.series_solution import SeriesSolution
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import write_archive

__all__ = ["FORMAT", "load", "save"]

FORMAT, VERSION = "pinnkit series solution", 2

# Records of plain settings that a model holds, and problem classes whose fields say what they are.
_SETTINGS: dict[str, type] = {
    c.__name__: c
    for c in (Direct, DormandPrince, EulerMaruyama, Milstein, Recompute, StochasticHeun)
}
_CLASSES: dict[str, type[ProblemClass]] = {
    c.__name__: c for c in (GeometricSDE, LangevinSDE, LinearNoiseSDE, NeuralCDE, UnconstrainedSDE)
}


def save(sol: SeriesSolution, path: str | PathLike[str]) -> None:
    """Write `sol` to `path`."""
    module = sol.module
    record = {
        "format": FORMAT,
        "version": VERSION,
        "problem": _problem_record(sol.problem),
        "model": _model_record(module),
        "task": _task_record(module.task),
        "normalisation": _normalisation_record(module.normalisation),
        "solver": files.solver_record(sol.solver),
        "status": sol.status.name,
        "history": sol.history.to_state(),
        "stats": files.stats_record(sol.stats),
        "seed": sol.seed,
        "samples": sol.samples,
        "dtype": str(sol.dtype).removeprefix("torch."),
        "snapshot": files.snapshot_record(sol.snapshot),
    }
    tensors = {"module": dict(module.state_dict()), **files.snapshot_tensors(sol.snapshot)}
    write_archive(path, record, tensors)


def load(path: str | PathLike[str], solvers: Mapping[str, type]) -> SeriesSolution:
    """Read what `save` wrote, onto the CPU. `sol.problem` has no series."""
    return files.read_saved(path, FORMAT, VERSION, lambda r, t: _solution(r, t, solvers))


def _solution(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, type]
) -> SeriesSolution:
    problem, system = _problem(record["problem"])
    dtype = files.DTYPES[record["dtype"]]
    task, normalisation = _task(record["task"]), _normalisation(record["normalisation"])
    module = _model(record["model"], system, task, normalisation, dtype)
    module.load_state_dict(tensors["module"])
    return SeriesSolution(
        problem=problem,
        solver=files.solver_from_record(record["solver"], solvers),
        module=module.eval(),
        status=Status[record["status"]],
        history=History.from_state(record["history"]),
        stats=files.stats_from_record(record["stats"]),
        seed=int(record["seed"]),
        samples=int(record["samples"]),
        device=torch.device("cpu"),
        dtype=dtype,
        snapshot=files.snapshot_from_record(tensors, **(record["snapshot"] or {"step": None})),
    )


def _problem_record(problem: Any) -> dict[str, Any]:
    system = problem.system
    if isinstance(system, SeriesTarget):
        return {"target": {"dim": system.dim}}
    tree: dict[str, Any] = {"system": sde_system_to_tree(system)}
    if type(problem) is _CLASSES.get(type(problem).__name__):
        knobs = {f.name: getattr(problem, f.name) for f in dataclasses.fields(problem)}
        tree["class"] = {"name": type(problem).__name__, "fields": {**knobs, "data": None}}
    return tree


def _problem(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """The problem, and the system its module belongs to (a class may declare by its series' span)."""
    if "target" in record:
        target = SeriesTarget(dim=record["target"]["dim"])
        return target, target
    system = sde_system_from_tree(record["system"])
    if "class" not in record:
        return system, system
    return _CLASSES[record["class"]["name"]](**record["class"]["fields"]), system


def _model_record(module: SeriesModel | RecurrentModel) -> dict[str, Any]:
    readout = _net_record(module.readout)
    if isinstance(module, RecurrentModel):
        cell = module.network.cell
        channels, dim = cell.input_size // 3, cell.hidden_size
        return {"kind": "recurrent", "channels": channels, "dim": dim, "readout": readout}
    return {
        "kind": "equation",
        "nets": {name: describe(net) for name, net in module.coefficients.nets.items()},
        "start": None if module.start is None else _net_record(module.start),
        "readout": readout,
        "method": _settings_record(module.method),
        "backward": _settings_record(module.backward),
        "steps": module.steps,
        "path": module.kind,
        "increment": list(module.coefficients.units.increment),
    }


def _model(
    spec: Mapping[str, Any],
    system: Any,
    task: Task,
    normalisation: Normalisation,
    dtype: torch.dtype,
) -> SeriesModel | RecurrentModel:
    readout = _net(spec["readout"], dtype)
    if spec["kind"] == "recurrent":
        network = GatedRecurrentNetwork(
            int(spec["channels"]), int(spec["dim"]), generator=torch.Generator(), dtype=dtype
        )
        return RecurrentModel(network, readout, task, normalisation)
    units = Units(
        normalisation.start,
        normalisation.duration,
        tuple(normalisation.mean.tolist()),
        tuple(normalisation.std.tolist()),
        tuple(map(float, spec.get("increment", ()))),  # older files have none
    )
    coefficients = StochasticModule(system.normal_form, nn.Linear, units, dtype=dtype)
    if set(spec["nets"]) != set(coefficients.nets):
        raise ValueError("the networks are not those of the equations")
    for name, net in spec["nets"].items():
        coefficients.nets[name] = rebuild(net, dtype=dtype)
    return SeriesModel(
        coefficients,
        None if spec["start"] is None else _net(spec["start"], dtype),
        readout,
        task,
        normalisation,
        method=_settings(spec["method"]),
        steps=int(spec["steps"]),
        kind=str(spec["path"]),
        backward=_settings(spec["backward"]),
    )


def _net_record(net: nn.Module) -> dict[str, Any]:
    if type(net) is nn.Linear and net.bias is not None:
        return {"class": "Linear", "inputs": net.in_features, "outputs": net.out_features}
    return describe(net)


def _net(spec: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    if spec["class"] == "Linear":
        sizes = int(spec["inputs"]), int(spec["outputs"])
        return nn.utils.skip_init(nn.Linear, *sizes, dtype=dtype)  # the global generator stays
    return rebuild(spec, dtype=dtype)


def _settings_record(settings: Any) -> dict[str, Any]:
    name = type(settings).__name__
    if type(settings) is not _SETTINGS.get(name):
        raise TypeError(f"{settings!r} cannot be written to a file: {name} is a class of yours")
    return {"name": name, "fields": dataclasses.asdict(settings)}


def _settings(record: Mapping[str, Any]) -> Any:
    return _SETTINGS[record["name"]](**record["fields"])


def _task_record(task: Task) -> dict[str, Any]:
    return {
        "classes": list(task.classes),
        "mean": None if task.mean is None else np.asarray(task.mean).tolist(),
        "std": None if task.std is None else np.asarray(task.std).tolist(),
        "per_time": task.per_time,
    }


def _task(record: Mapping[str, Any]) -> Task:
    mean, std = record["mean"], record["std"]
    return Task(
        tuple(record["classes"]),
        None if mean is None else np.array(mean, dtype=float),
        None if std is None else np.array(std, dtype=float),
        bool(record["per_time"]),
    )


def _normalisation_record(own: Normalisation) -> dict[str, Any]:
    return {
        "mean": own.mean.tolist(),
        "std": own.std.tolist(),
        "start": own.start,
        "duration": own.duration,
    }


def _normalisation(record: Mapping[str, Any]) -> Normalisation:
    return Normalisation(
        np.array(record["mean"], dtype=float),
        np.array(record["std"], dtype=float),
        float(record["start"]),
        float(record["duration"]),
    )
