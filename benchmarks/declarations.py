"""Thirty declarations that cannot be right: each must be refused, naming the culprit.

    python benchmarks/declarations.py [--messages]

Refused means `DeclarationError` (or `UnsupportedProblemError` for what is valid but beyond us), with
the user's own symbols in the message. The second column of `BAD` is what the message must name.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

import _common as common
import sympy as sp

import pinnkit as pk

t, x, y = pk.coords("t x y")
u, v = pk.field("u", t, x), pk.field("v", t, x)
w = pk.field("w", x, y)
T = pk.Interval(t, 0, 1)
X = pk.Interval(x, 0, 1)
Y = pk.Interval(y, 0, 1)
START = pk.Initial(u, sp.sin(sp.pi * x))
ENDS = pk.Dirichlet(u, 0, on=pk.boundary(x))
HEAT = u.diff(t) - u.diff(x, 2)


def heat(*conditions: Any, equations: Any = None, domain: Any = None) -> pk.PDESystem:
    """The heat equation with something replaced."""
    return pk.PDESystem(
        [HEAT] if equations is None else equations, domain or T * X, list(conditions)
    )


BAD: list[tuple[str, str, Callable[[], Any]]] = [
    ("interval upside down", r"\bx\b", lambda: pk.Interval(x, 1, 0)),
    ("infinite interval", r"\bx\b", lambda: pk.Interval(x, 0, sp.oo)),
    ("moving end", r"\bx\b.*\bt\b", lambda: pk.Interval(x, 0, 1 + t)),
    ("no equation", r"equation", lambda: heat(START, ENDS, equations=[])),
    (
        "condition off the boundary",
        r"x = -1",
        lambda: heat(START, pk.Dirichlet(u, 0, on=sp.Eq(x, -1))),
    ),
    ("no initial condition", r"u\(t, x\)|\bt\b", lambda: heat(ENDS)),
    (
        "two initial conditions for first order",
        r"u\.diff\(t\)",
        lambda: heat(START, pk.Initial(u.diff(t), 0), ENDS),
    ),
    ("no condition in x", r"\bx\b", lambda: heat(START)),
    (
        "one side without condition",
        r"right|x = 1",
        lambda: heat(START, pk.Dirichlet(u, 0, on=pk.boundary(x, "left"))),
    ),
    (
        "two conditions on one side of a second-order equation",
        r"left|right|x = [01]",
        lambda: heat(START, ENDS, pk.Neumann(u, 0, on=pk.boundary(x))),
    ),
    (
        "backward heat",
        r"u\(t, x\)|backward|ill-posed",
        lambda: heat(START, ENDS, equations=[u.diff(t) + u.diff(x, 2)]),
    ),
    (
        "elliptic equation as an initial value problem",
        r"u\(t, x\)|ill-posed",
        lambda: heat(
            START, pk.Initial(u.diff(t), 0), ENDS, equations=[u.diff(t, 2) + u.diff(x, 2)]
        ),
    ),
    (
        "delay",
        r"u\(t - 1, x\)|delay|t - 1",
        lambda: heat(START, ENDS, equations=[HEAT + u.func(t - 1, x)]),
    ),
    (
        "trace inside an equation",
        r"u\(t, 0\)",
        lambda: heat(START, ENDS, equations=[HEAT + u.func(t, 0)]),
    ),
    (
        "integral inside an equation",
        r"[Ii]ntegral",
        lambda: heat(START, ENDS, equations=[HEAT + sp.Integral(u, (x, 0, 1))]),
    ),
    (
        "arguments in the wrong order",
        r"u\(x, t\)",
        lambda: heat(START, ENDS, equations=[HEAT + u.func(x, t)]),
    ),
    (
        "unknown symbol",
        r"\bk\b",
        lambda: heat(START, ENDS, equations=[u.diff(t) - sp.Symbol("k") * u.diff(x, 2)]),
    ),
    (
        "field without equation",
        r"\bv\b",
        lambda: heat(START, ENDS, equations=[HEAT + v]),
    ),
    ("name used for coordinate and field", r"\bx\b", lambda: pk.field("x", t, x)),
    (
        "condition that matches no point",
        r"where|x > 2|no point",
        lambda: heat(START, pk.Dirichlet(u, 0, on=pk.boundary(x, where=t > 2))),
    ),
    (
        "derivative of a coefficient that jumps",
        r"div\(",
        lambda: pk.PDESystem(
            [(sp.Piecewise((1, x < 0.5), (10, True)) * w.diff(x)).diff(x) + w.diff(y, 2)],
            X * Y,
            [pk.Dirichlet(w, 0, on=pk.boundary(x)), pk.Dirichlet(w, 0, on=pk.boundary(y))],
        ),
    ),
    (
        "characteristics leave through a Dirichlet side",
        r"x = 1|right|leave|outflow",
        lambda: heat(START, ENDS, equations=[u.diff(t) + u.diff(x)]),
    ),
    (
        "incompatible Neumann source",
        r"\bw\b|compatib|integral|flux",
        lambda: pk.PDESystem(
            [pk.laplacian(w) - 1],
            X * Y,
            [pk.Neumann(w, 0, on=pk.boundary(x)), pk.Neumann(w, 0, on=pk.boundary(y))],
        ),
    ),
    (
        "coordinate without an interval",
        r"\by\b",
        lambda: pk.PDESystem([pk.laplacian(w)], X, [pk.Dirichlet(w, 0, on=pk.boundary(x))]),
    ),
    (
        "periodic on one axis and Dirichlet on it too",
        r"\bx\b",
        lambda: heat(START, pk.Periodic(u, x), ENDS),
    ),
    (
        "initial value that contains the field",
        r"u\(t, x\)|[Ii]nitial",
        lambda: heat(pk.Initial(u, u + 1), ENDS),
    ),
    (
        "parameter with empty bounds",
        r"nu",
        lambda: pk.parameter("nu", initial=0.5, bounds=(1, 0)),
    ),
    (
        "observations of the wrong length",
        r"[Oo]bservations.*[23]",
        lambda: heat(
            START, ENDS, pk.Observations(u, {t: [0.1, 0.2], x: [0.5, 0.5]}, [1.0, 2.0, 3.0])
        ),
    ),
    (
        "coordinate in two factors of the domain",
        r"\bx\b",
        lambda: T * X * pk.Interval(x, 2, 3),
    ),
    (
        "eigenvalue problem",
        r"lam|eigenvalue",
        lambda: pk.PDESystem(
            [w.diff(x, 2) + w.diff(y, 2) + pk.parameter("lam") * w],
            X * Y,
            [pk.Dirichlet(w, 0, on=pk.boundary(x)), pk.Dirichlet(w, 0, on=pk.boundary(y))],
        ),
    ),
    (
        "normal derivative inside an equation",
        r"dn|normal",
        lambda: heat(START, ENDS, equations=[HEAT + pk.dn(u)]),
    ),
]


def judge(declare: Callable[[], Any], culprit: str) -> tuple[bool, str]:
    """Whether it was refused by the right exception and the message names the culprit."""
    try:
        declare()
    except (pk.DeclarationError, pk.UnsupportedProblemError) as refused:
        message = str(refused)
        return bool(re.search(culprit, message, re.DOTALL)), message
    except Exception as other:  # any other exception is a fault of ours, and to be listed
        return False, f"{type(other).__name__} instead: {other}"
    return False, "accepted"


def main() -> int:
    """A table of all; 1 if one is accepted or its message misses the culprit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", action="store_true", help="whole messages, one per line")
    args = parser.parse_args()
    rows, faults = [], 0
    for name, culprit, declare in BAD:
        good, message = judge(declare, culprit)
        faults += not good
        text = " ".join(message.split())
        rows.append([name, "yes" if good else "NO", text if args.messages else text[:110]])
    common.print_table(["declaration", "refused", "message"], rows)
    print(f"{len(BAD) - faults} of {len(BAD)} refused with the culprit named")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
