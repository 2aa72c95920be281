"""Walls, open sides, and where the particles of a time span come from.

Flows: (sin(pi x)^2 sin(2 pi y), -sin(pi y)^2 sin(2 pi x)) has walls all round the unit square; the
rotation (-y, x) enters every side of [-1, 1]^2 over one half of it; speed 1 comes from x - t.
"""

from __future__ import annotations

import math
import re

import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.ir.characteristics import Transport, find_transport, flow_windows
from pinnkit.ir.labels import label_refusal, to_labels
from pinnkit.ir.sides import open_sides, upstream_box, wall_sides

t, x, y = pk.coords("t x y")
u, w = pk.field("u", t, x), pk.field("w", t, x, y)
LINE = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)


def velocity_of(nf) -> tuple[sp.Expr, ...]:
    transport = find_transport(nf)
    assert isinstance(transport, Transport)
    return transport.velocity


def line(equation, *conditions):
    return pk.PDESystem(
        [equation], LINE, [pk.Initial(u, sp.sin(sp.pi * x)), *conditions]
    ).normal_form


def square(a, b, *conditions, low=0, end=1):
    return pk.PDESystem(
        [w.diff(t) + a * w.diff(x) + b * w.diff(y)],
        pk.Interval(t, 0, end) * pk.Box((x, y), (low, low), (1, 1)),
        [pk.Initial(w, sp.exp(-50 * (x**2 + y**2))), *conditions],
    ).normal_form


SWIRL = (
    sp.sin(sp.pi * x) ** 2 * sp.sin(2 * sp.pi * y),
    -(sp.sin(sp.pi * y) ** 2) * sp.sin(2 * sp.pi * x),
)


def test_a_flow_that_vanishes_at_the_sides_has_walls():
    nf = square(*SWIRL)
    assert len(wall_sides(nf, velocity_of(nf))) == 4
    assert open_sides(nf, velocity_of(nf)) == ()
    assert label_refusal(nf) is None


def test_a_prescribed_state_can_make_a_wall():
    """Burgers with u = 0 on both sides: nobody passes."""
    nf = line(u.diff(t) + u * u.diff(x) - u.diff(x, 2) / 10, pk.Dirichlet(u, 0, on=pk.boundary(x)))
    assert len(wall_sides(nf, velocity_of(nf))) == 2
    form = to_labels(nf)
    (s,) = form.speeds
    assert {f.side for f in form.walls[s]} == {"left", "right"}
    assert [c.kind for c in form.nf.conditions] == ["initial", "initial", "dirichlet", "dirichlet"]


def test_particles_come_from_upstream():
    nf = line(u.diff(t) + u.diff(x), pk.Dirichlet(u, 0, on=pk.boundary(x, "left")))
    left, right = upstream_box(nf, velocity_of(nf), (0.0, 0.5))[x]  # type: ignore[index]
    assert -0.6 < left <= -0.5
    assert 1.0 <= right < 1.1


def test_the_corners_of_a_turning_square_come_from_its_circle():
    side = pk.Dirichlet(w, 0, on=pk.boundary(x, "left", where=y < 0))
    others = (
        pk.Dirichlet(w, 0, on=pk.boundary(x, "right", where=y > 0)),
        pk.Dirichlet(w, 0, on=pk.boundary(y, "left", where=x > 0)),
        pk.Dirichlet(w, 0, on=pk.boundary(y, "right", where=x < 0)),
    )
    nf = square(-y, x, side, *others, low=-1, end=3)
    assert label_refusal(nf) is None
    box = upstream_box(nf, velocity_of(nf), (0.0, 3.0))
    assert box is not None
    assert box[y][1] == pytest.approx(math.sqrt(2) + 0.1, abs=0.02)


@pytest.mark.parametrize(
    ("nf", "reason"),
    [
        (lambda: line(u.diff(t) + u.diff(x) - u.diff(x, 2) / 100,
                      pk.Dirichlet(u, 0, on=pk.boundary(x))),
         r"pass the side x = 0.*changes along their way.*boundary layer.*CausalPINN"),
        (lambda: line(u.diff(t) + pk.div(2 * u + u**2 / 2), pk.Dirichlet(u, 0, on=pk.boundary(x, "left"))),
         r"velocity that depends on the solution.*CausalPINN"),
        (lambda: square(-y, x, low=-1), r"no Dirichlet value says what.*CausalPINN"),
        (lambda: line(u.diff(t) + sp.sqrt(x + sp.Rational(1, 100)) * u.diff(x),
                      pk.Dirichlet(u, 0, on=pk.boundary(x, "left"))),
         r"velocity as written has no value there.*CausalPINN"),
    ],
)  # fmt: skip
def test_refusals_name_the_reason_and_the_way_out(nf, reason):
    found = label_refusal(nf())
    assert found is not None
    assert re.search(reason, found), found


def test_windows_follow_turns_and_strain():
    """The swirl turns its middle by 2 pi t; a speed that is the same everywhere needs one window."""
    nf = square(*SWIRL, end=2)
    transport = find_transport(nf)
    assert isinstance(transport, Transport)
    assert flow_windows(nf, transport) == math.ceil(2 * math.pi)
    nf = line(u.diff(t) + 40 * u.diff(x), pk.Dirichlet(u, 0, on=pk.boundary(x, "left")))
    transport = find_transport(nf)
    assert isinstance(transport, Transport)
    assert flow_windows(nf, transport) == 1
