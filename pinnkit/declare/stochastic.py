"""Symbols of stochastic equations: processes, Wiener processes, controls, neural terms, differentials.

In    names, as in `coords`; a time coordinate; numbers of components.
Out   sympy symbols, and `d(z)`, the differential of one.
Next  `sp.Eq(d(z), gamma*d(t) + sigma*z*d(W))` is an equation of an `SDESystem`.

A process of 16 components is one symbol: products and functions of it are taken component by
component. As with coordinates, what is declared about a symbol is part of its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate, read_names

__all__ = [
    "Control",
    "Differential",
    "Neural",
    "Process",
    "Wiener",
    "control",
    "d",
    "neural",
    "process",
    "wiener",
]


class _Declared(sp.Symbol):
    """A real symbol with what was declared about it; equal if name and declaration are equal."""

    __slots__ = ("declared",)
    is_stochastic = True  # refused in a PDESystem, by name

    declared: tuple[Any, ...]

    def __new__(cls, name: str, *declared: Any) -> Any:
        obj = sp.Symbol.__xnew__(cls, name, real=True)  # type: ignore[attr-defined]
        obj.declared = declared
        return obj

    @classmethod
    def class_key(cls) -> tuple[int, int, str]:
        """Sorted and printed like any symbol."""
        return sp.Symbol.class_key()

    def _hashable_content(self) -> tuple[Any, ...]:
        return (*super()._hashable_content(), type(self).__name__, *map(_text, self.declared))

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.name, *self.declared), {}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.name, *self.declared)


def _text(declared: Any) -> str:
    """What was declared, down to the symbols inside it; a text, because sympy sorts by it.

    The name of an input is not enough: two processes z of different sizes make different terms.
    """
    if isinstance(declared, tuple):
        return f"({', '.join(map(_text, declared))})"
    if isinstance(declared, sp.Basic):
        symbols: Any = sorted(declared.free_symbols, key=str)
        return f"{declared} of {[(type(s).__name__, *s._hashable_content()) for s in symbols]}"
    # A network is itself.
    return f"{id(declared)}" if callable(declared) else repr(declared)


class Process(_Declared):
    """An unknown random function of time with `dim` components."""

    @property
    def time(self) -> Coordinate:
        """The time it depends on."""
        return self.declared[0]

    @property
    def dim(self) -> int:
        """Number of components."""
        return self.declared[1]


class Wiener(_Declared):
    """A Wiener process; `dim` None: as many components as what it drives."""

    @property
    def time(self) -> Coordinate:
        """The time it depends on."""
        return self.declared[0]

    @property
    def dim(self) -> int | None:
        """Number of independent components."""
        return self.declared[1]


class Control(_Declared):
    """The path through the data of a series; its components are the data's channels."""

    is_stochastic = False

    @property
    def time(self) -> Coordinate:
        """The time it depends on."""
        return self.declared[0]


class Neural(_Declared):
    """A term to be learned: a network of `inputs`, with values of `shape` (None: as its place needs)."""

    is_stochastic = False

    @property
    def inputs(self) -> tuple[sp.Expr, ...]:
        """What the network sees."""
        return self.declared[0]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(n,) for a vector, (n, m) for a matrix."""
        return self.declared[1]

    @property
    def net(self) -> Callable[..., Any] | None:
        """The network, or its builder (inputs, outputs) -> network; None: the solver's choice."""
        return self.declared[2]


class Differential(sp.Expr):
    """d(z): the increment of a process, of W, of a control, or of time."""

    is_commutative = True
    is_stochastic = True

    def __new__(cls, of: sp.Symbol) -> Differential:
        return sp.Expr.__new__(cls, of)

    @property
    def of(self) -> Any:
        """What it is the increment of."""
        return self.args[0]

    def _sympystr(self, printer: Any) -> str:
        return f"d({printer._print(self.args[0])})"

    def _latex(self, printer: Any) -> str:
        return rf"\mathrm{{d}} {printer._print(self.args[0])}"


def process(name: str, time: Any, *, dim: int = 1) -> Any:
    """An unknown random function of time (several names give a tuple).

    Args:
        name: The name, or several separated by blanks.
        time: The time coordinate, made by `coords`.
        dim: Number of components; expressions act on each.

    >>> from pinnkit.declare import coords
    >>> z = process("z", coords("t"), dim=16)
    >>> z, z.dim
    (z, 16)
    """
    wrote = f'process("{name}", {time}, dim={dim})'
    _check_time(time, wrote)
    _check_dim(dim, wrote)
    return _made(name, "process", lambda n: Process(n, time, int(dim)), time)


def wiener(name: str, time: Any, *, dim: int | None = None) -> Any:
    """A Wiener process: independent increments, Gaussian with variance dt per component.

    Args:
        name: The name, or several separated by blanks.
        time: The time coordinate.
        dim: Number of independent components. None: one for each component of the process it drives.
            1: one for all of them (scalar noise).
    """
    wrote = f'wiener("{name}", {time}, dim={dim})'
    _check_time(time, wrote)
    if dim is not None:
        _check_dim(dim, wrote)
    return _made(name, "wiener", lambda n: Wiener(n, time, None if dim is None else int(dim)), time)


def control(name: str, time: Any) -> Any:
    """The path X(t) through the observations of a series; how it is interpolated is the solver's knob."""
    _check_time(time, f'control("{name}", {time})')
    return _made(name, "control", lambda n: Control(n, time), time)


def neural(
    name: str,
    inputs: Iterable[Any],
    *,
    shape: int | tuple[int, ...] | None = None,
    net: Callable[..., Any] | None = None,
) -> Any:
    """A term nobody wrote down: a network of `inputs`, to be learned.

    Args:
        name: The name.
        inputs: Time, processes, controls, or expressions of them; they are joined into one vector.
        shape: Number of values, or (rows, columns) of a matrix. None: as its place in the equations
            needs, one value per component of the process.
        net: A torch module from (n, inputs) to (n, outputs), or a builder (inputs, outputs) -> module.

    >>> from pinnkit.declare import coords
    >>> t = coords("t")
    >>> neural("gamma", inputs=(t, process("z", t, dim=16))).inputs
    (t, z)
    """
    wrote = f'neural("{name}", inputs={inputs!r})'
    given = (inputs,) if isinstance(inputs, (sp.Expr, str)) else tuple(inputs)
    if not given:
        raise refusal(wrote, "it has no inputs", "name at least one, inputs=(t,)")
    read = []
    for entry in given:
        expr = entry if isinstance(entry, str) else sp.sympify(entry)
        if not isinstance(expr, sp.Expr) or not expr.free_symbols:
            raise refusal(wrote, f"{entry!r} is no input", "give time, processes or controls")
        if expr.has(Differential, Wiener, Neural):
            raise refusal(
                wrote,
                f"{show(expr)} cannot be an input",
                "give time, processes, controls, or expressions of them",
            )
        read.append(expr)
    if net is not None and not callable(net):
        raise refusal(wrote, f"net={net!r} is no network", "give a module or a builder")
    sizes = None
    if shape is not None:
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        if not 1 <= len(sizes) <= 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise refusal(
                f'neural("{name}", shape={shape!r})',
                "that is no shape",
                "write a positive integer, or (rows, columns)",
            )
    return _made(name, "neural", lambda n: Neural(n, tuple(read), sizes, net), None)


def d(of: Any) -> Differential:
    """The differential of a process, a Wiener process, a control, or of time.

    >>> from pinnkit.declare import coords
    >>> t = coords("t")
    >>> z, W = process("z", t), wiener("W", t)
    >>> -z * d(t) + d(W)
    -z*d(t) + d(W)
    """
    if isinstance(of, (Process, Wiener, Control)) or (isinstance(of, Coordinate) and of.is_time):
        return Differential(of)
    instead = "write d of time, of a process, of W or of a control"
    if isinstance(of, sp.Expr) and of.has(Process):
        instead = "carry it out by the Ito formula, or make the expression a process of its own"
    elif isinstance(of, Coordinate):
        instead = f'only time has a differential; coords("{of}", time="{of}") makes it time'
    raise refusal(f"d({show(of)})", "it has no differential here", instead)


def _made(names: str, door: str, make: Callable[[str], Any], time: Any) -> Any:
    if not isinstance(names, str):
        raise refusal(f"{door}({names!r})", "a name is a string", f'write {door}("z", ...)')
    parts = read_names(names, door)
    if time is not None and str(time) in parts:
        raise refusal(
            f'{door}("{names}")', f"{time} is the name of time already", "give it another name"
        )
    made = tuple(make(n) for n in parts)
    return made[0] if len(made) == 1 else made


def _check_time(time: Any, wrote: str) -> None:
    if not isinstance(time, Coordinate):
        raise refusal(wrote, f"{time} is not a coordinate", 'make it with coords("t")')
    if not time.is_time:
        raise refusal(
            wrote, f"{time} is not time", f'write coords("{time}", time="{time}") to make it time'
        )


def _check_dim(dim: Any, wrote: str) -> None:
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise refusal(wrote, f"{dim!r} is no number of components", "write a positive integer")
