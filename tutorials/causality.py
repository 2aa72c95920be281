"""Why a network has to wait, and why nobody should believe a residual: one equation, three trainings.

    python tutorials/causality.py [FOLDER]

A wave runs round a ring. Trained on all times at once, the network finds something that is nearly zero
at late times: it satisfies the equation there, and is wrong. Trained causally, the same network waits for
the wave, and has not arrived when the steps are over. Both residuals look small, the checked errors do not.
Along its characteristics the same declaration is solved at once. Pictures are written to FOLDER (default:
out). Everything is bounded by steps, so that two runs print the same.
"""

import pathlib
import sys

import numpy as np
import sympy as sp
import torch
from matplotlib.figure import Figure

import pinnkit as pk
from pinnkit.train.causality import causal_weights, slice_means

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# %% 1. The problem: a sine carried round a ring, almost ten times.
# Krishnapriyan and others (2021) showed that plain physics-informed networks fail here. We know the
# answer, sin(x - 60 t), but do not tell: the check has to find out by itself.
t, x = pk.coords("t x")
u = pk.field("u", t, x)
SPEED = 60
ring = pk.PDESystem(
    [u.diff(t) + SPEED * u.diff(x)],
    domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2 * sp.pi),
    conditions=[pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
)
exact = sp.sin(x - SPEED * t)

# %% 2. All times at once: a schedule without strengths gives every time the weight 1.
# One small network and one window, so that nothing but causality differs between the two runs.
network = {"width": 20, "depth": 3, "windows": 1}
at_once = pk.CausalPINN(schedule=pk.CausalSchedule(strengths=()), **network)
plain = ring.solve(at_once, tol=1e-2, max_steps=300, time_limit=18, seed=0)
print(plain)

# %% 3. The same, but causally: w(t) = exp(-eps * integral of the squared residual up to t).
# eps goes through 1, 10, 100, 1000 and ends with all weights 1. A time that is not solved yet silences
# every later one, so training starts at the initial data and works its way forward: `reached` in the
# history says how far.
in_order = pk.CausalPINN(schedule=pk.CausalSchedule(), **network)
causal = ring.solve(in_order, tol=1e-2, max_steps=300, time_limit=18, seed=0)
print(causal)


# %% 4. What the residual says, and what the check says.
# The residual is what training sees. Scaled by its largest term it is a few percent for the wrong
# answer: a figure that would pass for "converged". The evidence beside the error says what it was
# compared with: an independent classical solve, which neither training has seen.
def rms_residual(sol: pk.Solution) -> float:
    """Of the equation, beside the size of its terms, at random points."""
    points = np.random.default_rng(0).uniform((0, 0), (1, 2 * np.pi), (4000, 2))
    return float(np.sqrt(np.mean(np.asarray(sol.residual(points)) ** 2))) / SPEED


print(f"{'':8} {'residual':>10} {'checked error':>14} {'true error':>11}  ok     evidence")
for name, sol in (("at once", plain), ("causal", causal)):
    print(
        f"{name:8} {rms_residual(sol):10.1e} {sol.error_estimate:14.1e} {sol.error(exact):11.1e}"
        f"  {sol.ok!s:5}  {sol.evidence.name}"
    )
assert not plain.ok, "the wrong answer must not pass"
assert causal.ok == (causal.error(exact) <= 1e-2), "what is said of an answer must be true of it"

# The frame was the difficulty: particles that move with the wave see nothing move.
along = ring.solve(pk.LagrangianPINN(), tol=1e-2, seed=0)
print(along)
assert along.ok

# %% 5. Picture: both answers and the truth at the end, and the errors over time.
times, places = np.linspace(0, 1, 101), np.linspace(0, 2 * np.pi, 201)
grid = {"t": times[:, None], "x": places[None, :]}
truth = np.sin(grid["x"] - SPEED * grid["t"])
figure = Figure(figsize=(11, 6), layout="constrained")
panels = figure.subplots(2, 3)
shown = {"truth": truth, "at once": plain(**grid), "causal": causal(**grid)}
for axis, (name, values) in zip(panels[0], shown.items()):
    axis.pcolormesh(times, places, values.T, vmin=-1, vmax=1, cmap="RdBu_r", shading="gouraud")
    axis.set(title=name, xlabel="t", ylabel="x")
for name, style in (("truth", "k-"), ("at once", "C3--"), ("causal", "C0--")):
    panels[1, 0].plot(places, shown[name][-1], style, label=name)
panels[1, 0].set(title="at t = 1", xlabel="x", ylabel="u")
panels[1, 0].legend()
for name, style in (("at once", "C3"), ("causal", "C0")):
    errors = np.sqrt(np.mean((shown[name] - truth) ** 2, axis=1) / np.mean(truth**2, axis=1))
    panels[1, 1].semilogy(times, errors, style, label=name)
panels[1, 1].set(title="relative error", xlabel="t")
panels[1, 1].legend()

# %% 6. The weights themselves are plain torch functions: use them in a training loop of your own.
# Squared residuals at random points, their mean per slice of time, and the weights these give. Put to
# the answer of section 2 they show what a causal run would have done: everything after the first
# turn would have waited.
points = np.random.default_rng(1).uniform((0, 0), (1, 2 * np.pi), (20000, 2))
squared = torch.as_tensor((np.asarray(plain.residual(points)) / SPEED) ** 2).reshape(-1, 1)
means = slice_means(torch.as_tensor(points[:, 0]), squared, slices=50)
ends = torch.linspace(0, 1, 101, dtype=torch.float64)
for eps in (1e1, 1e2, 1e3, 1e4):
    weights = causal_weights(ends, means, eps)
    assert weights[0] == 1  # the start never waits
    panels[1, 2].plot(times, weights, label=f"eps = {eps:g}")
panels[1, 2].set(title="weights the wrong answer would get", xlabel="t", ylabel="w")
panels[1, 2].legend()
figure.savefig(folder / "causality.png", dpi=110)
print("picture:", folder / "causality.png")

# %% 7. When causality is not the point.
# It costs steps, because late times wait. Where one small network can hold the whole time span
# without a wrong turn, training on all times at once arrives as well: logistic growth is one.
y = pk.field("y", t)
growth = pk.PDESystem(
    [y.diff(t) - 3 * y * (1 - y)],
    domain=pk.Interval(t, 0, 2),
    conditions=[pk.Initial(y, sp.Rational(1, 10))],
)
for name, solver in (("at once", at_once), ("causal", in_order)):
    sol = growth.solve(solver, max_steps=60, time_limit=5, seed=0)
    print(f"growth, {name}: E = {sol.error_estimate:.1e}, ok: {sol.ok}, {sol.stats.steps} steps")
    assert sol.ok
