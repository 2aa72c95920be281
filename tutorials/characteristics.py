"""Moving with the flow: transport solved along its characteristics, and where that ends.

    python tutorials/characteristics.py [FOLDER]

A profile carried round a ring oscillates in a fixed frame and stands still in one that moves along.
`LagrangianPINN` rewrites a declaration in that frame: what is known there is written down, the rest is
trained. Diffusion has to know how the frame deforms, and where two particles meet the smooth solution
ends. Pictures are written to FOLDER (default: out). Everything trained is bounded by steps.
"""

import pathlib
import sys

import numpy as np
import sympy as sp
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

import pinnkit as pk
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    Convection,
    InviscidBurgers,
    PeriodicBurgers,
)

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)
places = np.linspace(0, 2 * np.pi, 401)

# %% 1. Constant speed: in the moving frame nothing is left to do.
# Networks in a fixed frame fail here from a speed of 30 on. Along the characteristics x = x0 + 70 t the
# solution is its initial value, so there is nothing to train and the error is rounding.
sol = Convection(beta=70.0).solve(pk.LagrangianPINN())
print(f"speed 70: {sol.stats.steps} steps, E = {sol.error_estimate:.1e}")
assert sol.ok and sol.stats.steps == 0

# %% 2. The speed varies: a network learns where each particle goes, and nothing else.
# Particles bunch where the flow is slow. What they carry, u0(x0), is still known.
t, x = pk.coords("t x")
u = pk.field("u", t, x)
ring = pk.PDESystem(
    [u.diff(t) + 8 * (1 + sp.sin(x) / 2) * u.diff(x)],
    domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2 * sp.pi),
    conditions=[pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
)
print(pk.choose_solver(ring)[1])
flow = ring.solve(pk.LagrangianPINN(), max_steps=500, time_limit=30, seed=0)
print(flow)
assert flow.ok

# %% 3. Diffusion has to know how the frame deforms.
# Burgers' equation: the flow is the solution itself. Writing diffusion as a second derivative in the
# labels, as the published code does, is another equation. Its exact solution can be written down; the
# check, which knows nothing of labels, finds it wrong by several per cent.
NU = 0.1
viscous = PeriodicBurgers(nu=NU)


def in_labels(t: ArrayLike, x: ArrayLike) -> np.ndarray:
    """W = exp(-nu t) sin(x0) at X = x0 + sin(x0) (1 - exp(-nu t)) / nu, the labels found by halving."""
    when, place = np.broadcast_arrays(np.asarray(t, dtype=float), np.asarray(x, dtype=float))
    drift = (1 - np.exp(-NU * when)) / NU
    low, high = place - 1.1, place + 1.1
    for _ in range(60):
        middle = (low + high) / 2
        beyond = middle + drift * np.sin(middle) > place
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.exp(-NU * when) * np.sin(low)


wrong = pk.verify(viscous, in_labels)
right = viscous.solve(pk.LagrangianPINN(), max_steps=500, time_limit=30, seed=0)
print(
    f"diffusion in labels: E = {wrong.error:.1e}; with the map's Jacobian: E = {right.error_estimate:.1e}"
)
assert wrong.error > 1e-2
assert right.error_estimate < 0.1 * wrong.error

# %% 4. Where characteristics cross, the smooth solution ends.
# Without viscosity the sine breaks at t = 1 in x = pi. The answer says when and where, and gives no
# values afterwards. The conservation law goes on with a shock: declared in flux form (`pk.div`), it is
# what the classical solver computes.
breaking = InviscidBurgers(T=1.5)
until = breaking.solve(pk.LagrangianPINN())
when, (where,) = until.stats.more["shock_time"], until.stats.more["shock_place"]
print(f"{until.status.name} at t = {when:.4f}, x = {where:.4f}")
assert until.status is pk.Status.SHOCK and not until.ok
assert abs(when - 1) < 1e-2
beyond = breaking.solve(pk.MethodOfLines(), time_limit=10, verify=False)

# %% 5. Pictures: the characteristics, the two viscous answers, before and after the shock.
figure = Figure(figsize=(11, 7), layout="constrained")
panels = figure.subplots(2, 2)
times = np.linspace(0, 1, 101)
grid = {"t": times[:, None], "x": places[None, :]}
panels[0, 0].pcolormesh(
    places, times, flow(**grid), vmin=-1, vmax=1, cmap="RdBu_r", shading="gouraud"
)
panels[0, 0].set(
    title="carried by 8 (1 + 0.5 sin x): colours follow particles", xlabel="x", ylabel="t"
)
for start in np.linspace(0, 2 * np.pi, 12, endpoint=False):
    panels[0, 1].plot(start + times * np.sin(start), times, "C0", lw=0.8)
panels[0, 1].plot(where, when, "kx")
panels[0, 1].set(title="Burgers without viscosity: x0 + t sin(x0)", xlabel="x", ylabel="t")
panels[1, 0].plot(places, right(t=1.0, x=places), "C0", label="with the Jacobian")
panels[1, 0].plot(places, in_labels(1.0, places), "C3--", label="diffusion in labels")
panels[1, 0].set(title=f"viscous Burgers, nu = {NU}, t = 1", xlabel="x", ylabel="u")
panels[1, 0].legend()
for instant, style in ((0.0, "C7"), (0.9, "C0")):
    panels[1, 1].plot(places, until(t=instant, x=places), style, label=f"t = {instant}, followed")
panels[1, 1].plot(places, beyond(t=1.5, x=places), "C3", label="t = 1.5, entropy solution")
panels[1, 1].set(title="the same without viscosity", xlabel="x", ylabel="u")
panels[1, 1].legend()
figure.savefig(folder / "characteristics.png", dpi=110)
print("picture:", folder / "characteristics.png")

# %% 6. When a fixed frame is the better one.
# Waves travel in two directions at once, and a pulse that diffuses into a wall leaves the particles
# that carried it. Both are refused with a reason; `.solve()` takes the other solver by itself.
w = pk.field("w", t, x)
waves = pk.PDESystem(
    [w.diff(t, 2) - w.diff(x, 2)],
    domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
    conditions=[
        pk.Initial(w, sp.sin(sp.pi * x)),
        pk.Initial(w.diff(t), 0),
        pk.Dirichlet(w, 0, on=pk.boundary(x)),
    ],
)
print("refused:", pk.LagrangianPINN().supports(waves))
