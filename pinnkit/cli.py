"""The command line: list, solve, verify, info; `solve` also under torchrun.

In    a gallery name or `file.py:ClassOrObject`, and the common knobs as options.
Out   a progress line; solution.pinn, solution.nc, solution.png and report.json (of what learned a family the
      first and the last); an exit code.
Next  the shell: 0 ok, 2 unverified, 1 otherwise (usage errors included).
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import scipy
import sympy as sp
import torch

from pinnkit.declare import AbstractProblem, PDEFamily, PDESystem, ProblemClass
from pinnkit.driver import SOLVERS, choose_solver, load, solve, verify
from pinnkit.errors import MissingDependencyError, Status
from pinnkit.solution import FamilyOperator, GraphSolution, Solution, Verification
from pinnkit.solution.estimate import solver_name
from pinnkit.solution.export import to_netcdf
from pinnkit.solution.held_out import held_out_record, operator_status
from pinnkit.train.checkpoint import write_atomically
from pinnkit.train.ranks import RankError, Ranks, join_ranks

__all__ = ["main"]

OK, FAILED, UNVERIFIED = 0, 1, 2


class UsageError(Exception):
    """The command as typed cannot be carried out; the message says what to type instead."""


class _Parser(argparse.ArgumentParser):
    """argparse leaves with 2, which here means "unverified"."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s"
    )
    try:
        return options.run(options)
    except (
        UsageError, ValueError, NotImplementedError, MissingDependencyError, OSError, RankError,
    ) as fault:  # fmt: skip
        rank = int(os.environ.get("RANK", "0"))
        who = f"rank {rank}: " if rank else ""
        kind = type(fault).__name__.replace("UsageError", "error")
        print(f"{who}{kind}: {fault}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pinnkit", description="Solve declared PDEs and say how wrong the answers are."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log decisions")
    commands = parser.add_subparsers(dest="command", required=True)

    listing = commands.add_parser("list", help="the gallery of problems")
    listing.set_defaults(run=_list)

    solving = commands.add_parser("solve", help="solve a problem")
    solving.add_argument("problem", help="a gallery name, or file.py:ClassOrObject")
    solving.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the problem",
    )
    solving.add_argument("--solver", help=f"one of {', '.join(s.__name__ for s in SOLVERS)}")
    solving.add_argument("--time-limit", type=float, default=300.0, help="seconds for training")
    solving.add_argument("--max-steps", type=int, help="steps in all")
    solving.add_argument("--tol", type=float, help="relative error wanted")
    solving.add_argument("--seed", type=int, default=0)
    solving.add_argument("--device", default="cpu", help='where tensors live, for example "cuda"')
    solving.add_argument("--checkpoint", help="file to write the state of training to")
    solving.add_argument("--checkpoint-every", type=int, default=100, help="steps between writings")
    solving.add_argument("--resume", help="checkpoint to go on from")
    solving.add_argument("--out", type=Path, help="folder for the solution, its picture and report")
    solving.add_argument("--quiet", action="store_true", help="no progress line")
    solving.set_defaults(run=_solve)

    verifying = commands.add_parser("verify", help="judge a saved solution")
    verifying.add_argument("saved", type=Path, help="a .pinn file")
    verifying.add_argument("--tol", type=float, help="relative error to judge at")
    verifying.add_argument("--time-limit", type=float, default=75.0, help="seconds allowed")
    verifying.set_defaults(run=_verify)

    informing = commands.add_parser("info", help="versions, devices, solvers")
    informing.set_defaults(run=_info)
    return parser


def _list(options: argparse.Namespace) -> int:
    gallery = _gallery()
    width = max(map(len, gallery), default=0)
    for name, cls in gallery.items():
        lines = (cls.__doc__ or "").strip().splitlines() or [""]
        knobs = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(cls) if f.init)
        print(f"{name:<{width}}  {lines[0]}{f'  ({knobs})' if knobs else ''}")
    return OK


def _solve(options: argparse.Namespace) -> int:
    with join_ranks(options.device) as ranks:
        return _solve_on(ranks, options)


def _solve_on(ranks: Ranks, options: argparse.Namespace) -> int:
    """Rank 0 speaks and writes; the others leave with 0 once training is over."""
    problem = _problem(options.problem, _settings(options.set))
    if options.solver is None:
        solver, reason = choose_solver(problem)
        if ranks.first:
            print(reason)
    else:
        solver = _solver(options.solver)
    if options.out is not None:
        # Before minutes of work, not after.
        options.out.mkdir(parents=True, exist_ok=True)
    sol = solve(
        problem,
        solver,
        max_steps=options.max_steps,
        time_limit=options.time_limit,
        tol=options.tol,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        checkpoint=_checkpoint(options),
        resume=_resume(options),
        ranks=ranks,
    )
    if not ranks.first:
        return OK
    print(sol)
    if options.out is not None:
        _write(sol, options, options.out)
    return _code(sol.status)


def _checkpoint(options: argparse.Namespace) -> tuple[str, int] | None:
    return None if options.checkpoint is None else (options.checkpoint, options.checkpoint_every)


def _resume(options: argparse.Namespace) -> str | None:
    """What to go on from: after a restart by torchrun the checkpoint of the run before."""
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if restarted and options.checkpoint is not None and Path(options.checkpoint).exists():
        return options.checkpoint
    return options.resume


def _verify(options: argparse.Namespace) -> int:
    sol = load(options.saved)
    if isinstance(sol, FamilyOperator):
        fresh = sol.score(sol.solver.judged, tol=options.tol, time_limit=options.time_limit)
        print(sol)
        status = operator_status(Status.OK, fresh, verified=True)
        print(f"verdict   {status.name}, {fresh.error:.2e} on {len(fresh.errors)} other draws")
        return _code(status)
    # Judged afresh: the file's own verdict is what is in doubt.
    tol = sol.verification.tol if options.tol is None else options.tol
    verdict = verify(sol.problem, sol, tol=tol, time_limit=options.time_limit)
    print(sol)
    print(f"verdict   {verdict}")
    return _code(verdict.status)


def _info(options: argparse.Namespace) -> int:
    try:
        ours = importlib.metadata.version("pinnkit")
    except importlib.metadata.PackageNotFoundError:
        ours = "not installed"
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else "none"
    facts = {
        "pinnkit": ours,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sympy": sp.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "accelerator": device,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "solvers": ", ".join(s.__name__ for s in SOLVERS),
        "problems": len(_gallery()),
    }
    for name, value in facts.items():
        print(f"{name:<12} {value}")
    return OK


def _write(
    sol: Solution | GraphSolution | FamilyOperator, options: argparse.Namespace, out: Path
) -> None:
    """The files; the report comes last, so its presence says that all are there."""
    sol.save(out / "solution.pinn")
    if isinstance(sol, FamilyOperator):
        _write_report(_report(sol, options, held_out=_held_out(sol)), out)
        print(f"wrote solution.pinn and report.json to {out}")
        return
    if isinstance(sol, GraphSolution):
        sol.to_xarray().to_netcdf(out / "solution.nc", engine="scipy")
    else:
        to_netcdf(sol, out / "solution.nc", {})
    sol.plot().savefig(out / "solution.png", dpi=120)
    _write_report(_report(sol, options, **_verdict(sol)), out)
    print(f"wrote solution.pinn, solution.nc, solution.png and report.json to {out}")


def _write_report(report: dict[str, Any], out: Path) -> None:
    text = json.dumps(_plain(report), indent=2, allow_nan=False)
    write_atomically(out / "report.json", text.encode())


def _held_out(op: FamilyOperator) -> dict[str, Any]:
    return held_out_record(op.held_out) | {"errors": op.held_out.errors.tolist()}


def _verdict(sol: Solution | GraphSolution) -> dict[str, Any]:
    verdict: Verification = sol.verification
    figures = {
        f.name: getattr(verdict, f.name)
        for f in dataclasses.fields(verdict)
        if f.name not in ("reference", "status", "evidence", "errors")
    }
    return {
        "errors": dict(sol.errors),
        "verification": figures,
        "parameters": {
            str(p): {"value": e.value, "stderr": e.stderr} for p, e in sol.parameters.items()
        },
    }


def _report(
    sol: Solution | GraphSolution | FamilyOperator, options: argparse.Namespace, **more: Any
) -> dict[str, Any]:
    stats = {f.name: getattr(sol.stats, f.name) for f in dataclasses.fields(sol.stats)}
    return {
        "problem": options.problem,
        "settings": _settings(options.set),
        "solver": repr(sol.solver),
        "solver_name": solver_name(sol.solver),
        "seed": options.seed,
        "device": options.device,
        "status": sol.status.name,
        "message": sol.status.message,
        "ok": sol.ok,
        "evidence": sol.evidence.name,
        "error_estimate": sol.error_estimate,
        **more,
        "stats": stats | {"stopped_by": sol.stats.stopped_by.name},
    }


def _plain(value: Any) -> Any:
    """Strict JSON: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _code(status: Status) -> int:
    if status.ok:
        return OK
    return UNVERIFIED if status in (Status.UNVERIFIED, Status.NO_GROUND_TRUTH) else FAILED


def _gallery() -> dict[str, Any]:
    # By name and late: the gallery is data that stands above the package.
    module = importlib.import_module("pinnkit.problems")
    return {
        cls.__name__: cls
        for cls in (
            *module.GALLERY,
            *module.FAMILY_GALLERY,
            *module.SERIES_GALLERY,
            *module.LAW_GALLERY,
            *module.GRAPH_GALLERY,
        )
    }


def _solver(name: str) -> Any:
    for cls in SOLVERS:
        if cls.__name__ == name:
            return cls()
    raise UsageError(f"no solver {name!r}; there are {', '.join(s.__name__ for s in SOLVERS)}")


def _problem(text: str, settings: Mapping[str, Any]) -> AbstractProblem:
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".py"):
        found = _from_file(Path(file), name)
    else:
        gallery = {n.lower(): cls for n, cls in _gallery().items()}
        if text.lower() not in gallery:
            raise UsageError(
                f"no problem {text!r}; `pinnkit list` shows the gallery, "
                "file.py:ClassOrObject takes one of your own"
            )
        found = gallery[text.lower()]
    if isinstance(found, type) and issubclass(found, ProblemClass):
        _check_settings(found, settings)
        return found(**settings)
    if isinstance(found, ProblemClass):
        _check_settings(type(found), settings)
        return found.remake(**settings) if settings else found
    if isinstance(found, PDESystem):
        symbols = {str(p): p for p in found.parameters}
        unknown = sorted(set(settings) - set(symbols))
        if unknown:
            raise UsageError(f"{text} has no parameter {', '.join(unknown)}")
        if not settings:
            return found
        return found.remake(parameters={symbols[n]: v for n, v in settings.items()})
    if isinstance(found, PDEFamily) and not settings:
        return found
    raise UsageError(f"{text} is a {type(found).__name__}, not a problem")


def _from_file(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise UsageError(f"{path} has no {name}")
    return getattr(module, name)


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {pair}: write --set NAME=VALUE")
        try:
            settings[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            settings[name.strip()] = text.strip()
    return settings


def _check_settings(cls: Any, settings: Mapping[str, Any]) -> None:
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise UsageError(f"{cls.__name__} has no parameter {', '.join(unknown)}; {has}")
    for field in dataclasses.fields(cls):
        if field.name not in settings or not isinstance(field.default, (int, float)):
            continue
        value, truth = settings[field.name], isinstance(field.default, bool)
        if not isinstance(value, (int, float)) or isinstance(value, bool) != truth:
            kind = "True or False" if truth else "a number"
            raise UsageError(f"--set {field.name}={value}: {field.name} is {kind}")
