"""The normal form of a stochastic system: drift, diffusion, and the structure of its noise.

In    an `SDESystem`.
Out   `StochasticForm`: one coefficient per process and differential, shapes of all neural terms.
Next  `lower.stochastic` compiles it to torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import sympy as sp

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.stochastic import Control, Differential, Neural, Process, Wiener
from pinnkit.declare.symbols import Coordinate, Parameter, fields_in
from pinnkit.ir.neural_shapes import Shape, place_shapes
from pinnkit.ir.noise_structure import classify_noise, depends_on, wiener_sizes

if TYPE_CHECKING:
    from pinnkit.declare.sde_system import SDESystem

__all__ = ["StochasticForm", "latex_of_stochastic", "normalise_stochastic"]


@final
@dataclass(frozen=True, eq=False)
class StochasticForm:
    """dz_i = drift_i dt + sum_k diffusion_ik dW_k + sum_j driven_ij dX_j.

    Args:
        time: The coordinate.
        processes: In the order of their equations; the state is their components one after another.
        wieners: In the order of their names; W is their components one after another.
        sizes: Number of components of each Wiener process.
        controls, neurals, parameters: What the coefficients contain.
        drift: Expression per process; 0 where there is none.
        diffusion: Expression per (process, Wiener process) that drives it.
        driven: Expression per (process, control) whose increments drive it: controlled equations.
        initial: Expression per process at the first time; empty where the solver decides.
        shapes: The values of each neural term: (n,), or (n, m); m None: the control's channels.
        noise: The structure of the whole.
        elementwise: Whether each component of the state has its own component of W, or none: g is
            then kept as a vector.
        calculus: ITO or STRATONOVICH.
    """

    time: Coordinate
    processes: tuple[Process, ...]
    wieners: tuple[Wiener, ...]
    sizes: Mapping[Wiener, int]
    controls: tuple[Control, ...]
    neurals: tuple[Neural, ...]
    parameters: tuple[Parameter, ...]
    drift: Mapping[Process, sp.Expr]
    diffusion: Mapping[tuple[Process, Wiener], sp.Expr]
    driven: Mapping[tuple[Process, Control], sp.Expr]
    initial: Mapping[Process, sp.Expr]
    shapes: Mapping[Neural, Shape]
    noise: Noise
    elementwise: bool
    calculus: Calculus

    @property
    def dim(self) -> int:
        """Number of components of the state."""
        return sum(z.dim for z in self.processes)

    @property
    def channels(self) -> int:
        """Number of components of W as the integrator sees it."""
        return self.dim if self.elementwise else max(1, sum(self.sizes.values()))


def normalise_stochastic(system: SDESystem) -> StochasticForm:
    """Check a declared system and bring it into normal form."""
    # Coefficients first: every later check is about one of them.
    rows = [_solve_for_process(e, i + 1) for i, e in enumerate(system.equations)]
    processes = _check_processes(rows, system.equations)
    time = processes[0].time
    drift: dict[Process, sp.Expr] = {}
    diffusion: dict[tuple[Process, Wiener], sp.Expr] = {}
    driven: dict[tuple[Process, Control], sp.Expr] = {}
    for z, row in rows:
        drift[z] = row.pop(time, sp.S.Zero)
        for of, coefficient in row.items():
            if isinstance(of, Wiener):
                diffusion[z, of] = coefficient
            else:
                driven[z, of] = coefficient
    initial = _check_initial(system.initial, processes)
    found = _collect([*drift.values(), *diffusion.values(), *driven.values(), *initial.values()])
    _check_symbols(found, processes, time, system.equations)
    wieners = _by_name({w for _, w in diffusion})
    # Sizes of W before shapes: a matrix is needed only where W has another size than the process.
    sizes = wiener_sizes(wieners, diffusion)
    shapes = place_shapes(drift, diffusion, driven, initial, sizes)
    noise, elementwise = classify_noise(processes, diffusion, sizes, shapes)
    controls = _by_name({*(s for s in found if isinstance(s, Control)), *(x for _, x in driven)})
    return StochasticForm(
        time=time,
        processes=processes,
        wieners=wieners,
        sizes=sizes,
        controls=controls,
        neurals=_by_name({s for s in found if isinstance(s, Neural)}),
        parameters=_by_name({s for s in found if isinstance(s, Parameter)}),
        drift=drift,
        diffusion=diffusion,
        driven=driven,
        initial=initial,
        shapes=shapes,
        noise=noise,
        elementwise=elementwise,
        calculus=system.calculus,
    )


def latex_of_stochastic(form: StochasticForm, product: str = "") -> str:
    """The equations in normal form; `product` stands between g and dW."""
    lines = []
    for z in form.processes:
        right = [rf"\left({sp.latex(form.drift[z])}\right) \mathrm{{d}} {sp.latex(form.time)}"]
        for (owner, of), coefficient in {**form.diffusion, **form.driven}.items():
            if owner == z:
                circle = product if isinstance(of, Wiener) else ""
                right.append(
                    rf"\left({sp.latex(coefficient)}\right){circle} \mathrm{{d}} {sp.latex(of)}"
                )
        lines.append(rf"\mathrm{{d}} {sp.latex(z)} &= {' + '.join(right)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


Row = tuple[Process, dict[Any, sp.Expr]]


def _solve_for_process(equation: Any, number: int) -> Row:
    """The process an equation is about, and the coefficient of every other differential."""
    wrote = f"equation {number}, {show(equation)}"
    if isinstance(equation, sp.MatrixBase):
        raise refusal(wrote, "this is a vector", "write one equation per process")
    full = _sides(equation)
    marks = {m: sp.Dummy(str(m.of)) for m in sorted(full.atoms(Differential), key=str)}
    for neural in full.atoms(Neural):
        if any(entry.has(Differential) for entry in neural.inputs):
            raise refusal(wrote, f"{neural} sees a differential", "give it processes and time")
    marked = full.xreplace(marks)
    rest = marked.xreplace(dict.fromkeys(marks.values(), sp.S.Zero))
    if sp.expand(rest) != 0:
        raise refusal(
            wrote,
            f"the term {show(sp.expand(rest))} has no differential",
            "multiply it by d(t), and write one equation for d(z)",
        )
    coefficients = {m.of: sp.diff(marked, mark) for m, mark in marks.items()}
    for of, coefficient in coefficients.items():
        if coefficient.has(*marks.values()):
            raise refusal(
                wrote,
                f"it is not linear in d({of})",
                "write single differentials only; d(W)**2 is d(t) by the Ito formula",
            )
    own = [of for of in coefficients if isinstance(of, Process) and coefficients[of] != 0]
    if len(own) != 1:
        what = "no process" if not own else f"d({own[0]}) and d({own[1]})"
        raise refusal(wrote, f"it contains {what}", "write one equation per process, d(z) = ...")
    leading = coefficients.pop(own[0])
    solved = {of: -c / leading for of, c in coefficients.items() if c != 0}
    return own[0], solved


def _check_processes(rows: list[Row], equations: tuple[Any, ...]) -> tuple[Process, ...]:
    processes = tuple(z for z, _ in rows)
    for i, z in enumerate(processes):
        if z in processes[:i]:
            raise refusal(
                f"equation {i + 1}, {show(equations[i])}",
                f"{z} has an equation already, number {processes.index(z) + 1}",
                "join them into one",
            )
    names = [z.name for z in processes]
    if len(set(names)) < len(names):
        raise refusal(
            f"SDESystem of {', '.join(names)}",
            "two processes of one name differ in what was declared about them",
            "declare each once",
        )
    times = {of for _, row in rows for of in row if isinstance(of, Coordinate)}
    times |= {s.time for z, row in rows for s in (z, *row) if not isinstance(s, Coordinate)}
    if len(times) > 1:
        raise refusal(
            "SDESystem(...)", f"it has the times {', '.join(sorted(map(str, times)))}", "use one"
        )
    return processes


def _check_initial(initial: Any, processes: tuple[Process, ...]) -> dict[Process, sp.Expr]:
    if initial is None:
        return {}
    for z in initial:
        if z not in processes:
            raise refusal(
                f"initial={{{show(z)}: ...}}",
                f"{show(z)} has no equation",
                f"choose among {', '.join(map(str, processes))}",
            )
    left_out = [z for z in processes if z not in initial]
    if left_out:
        raise refusal(
            "SDESystem(initial=...)", f"{left_out[0]} has no initial value", "give one for each"
        )
    for z, value in initial.items():
        if value.has(Process, Wiener, Differential) or depends_on(value, (Process,)):
            raise refusal(
                f"initial={{{z}: {show(value)}}}",
                "it depends on a process",
                "write numbers, parameters, controls, or neural terms of controls",
            )
    return dict(initial)


def _collect(expressions: list[sp.Expr]) -> set[Any]:
    """Every symbol, those that neural terms see included."""
    found: set[Any] = set()
    for expr in expressions:
        found |= expr.free_symbols
    for neural in [s for s in found if isinstance(s, Neural)]:
        for entry in neural.inputs:
            found |= entry.free_symbols
    return found


def _check_symbols(
    found: set[Any], processes: tuple[Process, ...], time: Coordinate, equations: tuple[Any, ...]
) -> None:
    kinds = (Process, Control, Neural, Parameter, Coordinate)
    for e in equations:
        if fields_in(e):
            name = fields_in(e)[0].name
            raise refusal(
                f"SDESystem([..., {show(e)}, ...])",
                f"{name} is a field",
                f'write process("{name}", {time}), or a PDESystem for equations without noise',
            )
    for s in sorted(found, key=str):
        where = next((e for e in equations if s in _collect([_sides(e)])), equations[0])
        wrote = f"SDESystem([..., {show(where)}, ...])"
        if isinstance(s, Wiener):
            raise refusal(wrote, f"{s} stands outside d({s})", "make it a process: d(y) = d(W)")
        if not isinstance(s, kinds):
            raise refusal(
                wrote, f"{s} is unknown", f'write parameter("{s}") for a number to be learned'
            )
        if isinstance(s, Process) and s not in processes:
            raise refusal(wrote, f"{s} has no equation", f"add one for d({s})")
        if isinstance(s, Coordinate) and s != time:
            raise refusal(wrote, f"{s} is not the time of these processes", f"use {time}")
    names = [s.name for s in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise refusal(
            "SDESystem(...)", f"the name {twice} is used for two things", "rename one of them"
        )


def _sides(e: Any) -> Any:
    if not isinstance(e, sp.Equality):
        return e
    sides: Any = e.args
    return sides[0] - sides[1]


def _by_name(symbols: set[Any]) -> tuple[Any, ...]:
    return tuple(sorted(symbols, key=lambda s: s.name))
