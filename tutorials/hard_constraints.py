"""A family of equations: learn where its solutions live, then solve any member in a fraction of a second.

    python tutorials/hard_constraints.py [FOLDER]

A pollutant diffuses into ground water that sorbs it. How far it gets depends on what the ground holds already, and
nobody knows that: so the equation is declared for every such value, a basis for its solutions is learned without
having seen one, and each member is a small least-squares problem. Pictures are written to FOLDER (default: out).
"""

import pathlib
import sys
import tempfile

import numpy as np
import sympy as sp
from matplotlib.figure import Figure

import pinnkit as pk

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# %% 1. The declaration: an equation with a number in it that is drawn, u0. (The one of `problems/diffusion_sorption.py`.)
t, x = pk.coords("t x")
u, u0 = pk.field("u", t, x), pk.given("u0")
D = 5e-4  # m^2/day
R = 1 + 2.15691 * (sp.Max(u, 0) + 1e-6) ** sp.Rational("-0.126")  # retardation
system = pk.PDESystem(
    [u.diff(t) - D / R * u.diff(x, 2)],
    domain=pk.Interval(t, 0, 500) * pk.Interval(x, 0, 1),
    conditions=[
        pk.Initial(u, u0),
        pk.Dirichlet(u, 1, on=pk.boundary(x, "left")),
        pk.Robin(u + D * pk.dn(u), on=pk.boundary(x, "right")),
    ],
)
# The start contradicts both ends, which is meant and needs no warning: layers leave them.
family = pk.PDEFamily.without_warnings(system, inputs={u0: pk.Uniform(0, 0.2)})

# %% 2. Learn. The loss is what is left of the equation once the coefficients are the best ones; no solution is seen.
# Ten other draws are then solved independently, and the operator is judged by them.
solver = pk.HardConstraintMoE(steps=8, judged=10)
op = family.solve(solver, seed=0, tol=5e-3, time_limit=600)
print(op)
assert op.ok

# %% 3. One member: a solution like every other, which can be checked like every other.
sol = op({u0: 0.05})
verdict = sol.verify()
print(verdict)
print("how it was found:", sol.stats.more)
print("u(100, x):", sol(t=100, x=[0.05, 0.1, 0.2]))
assert verdict.ok

# %% 4. What is hard: start and wall, to rounding, for every member. The outflow and the equation only as well as they can be.
places = np.linspace(0.01, 0.99, 50)
start = np.abs(sol(t=0.0, x=places) - 0.05).max()
wall = np.abs(sol(t=np.linspace(1, 500, 50), x=0.0) - 1).max()
outflow = np.abs(sol[u + D * u.diff(x)](t=np.linspace(1, 500, 50), x=1.0)).max()
print(f"off by: start {start:.0e}, wall {wall:.0e}, outflow {outflow:.0e}")
assert max(start, wall) < 1e-12

# %% 5. Many members at once: the day on which half of the inlet's concentration has come 0.1 m far.
days = np.linspace(0, 500, 201)
cases = [{u0: v} for v in np.linspace(0.01, 0.19, 10)]
points = np.stack([days, np.full_like(days, 0.1)], 1)
curves = op.values(cases, points)["u"]
arrival = np.array([np.interp(0.5, c, days) for c in curves])
print(
    "the half comes on day", arrival.round(1), "for u0 =", [round(float(c[u0]), 2) for c in cases]
)
assert (np.diff(arrival) < 0).all()

# %% 6. What the norm and the overlap are for: the published layer makes the plain residual small in boxes that do not overlap.
plain = pk.HardConstraintMoE(norm="pointwise", overlap=0.0, steps=2)
boxes = family.solve(plain, seed=0, verify=False)
broken = boxes({u0: 0.05})
jumps = [float(s.stats.more["interface_jump"]) for s in (sol, broken)]
print(
    f"largest jump between neighbours: {jumps[0]:.0e}, in boxes {jumps[1]:.2f} of the field's range"
)
assert jumps[0] < 1e-6

# %% 7. A file holds the declaration, the weights and the verdict; and no code.
with tempfile.TemporaryDirectory() as name:
    path = pathlib.Path(name) / "sorption.pinn"
    op.save(path)
    again = pk.load(path)
    assert np.allclose(again({u0: 0.05})(t=100, x=0.1), sol(t=100, x=0.1))

# %% 8. Pictures.
figure = Figure(figsize=(11, 4), layout="constrained")
panels = figure.subplots(1, 3)
at = np.linspace(0, 1, 401)
for day in (5, 50, 200, 500):
    panels[0].plot(at, sol(t=float(day), x=at), label=f"day {day}")
panels[0].plot(at, broken(t=500.0, x=at), "k:", lw=1, label="day 500, plain norm in boxes")
panels[0].set(xlabel="x / m", ylabel="u", title="u0 = 0.05")
panels[0].legend(fontsize=8)
panels[1].plot([c[u0] for c in cases], arrival, "o-", ms=4)
panels[1].set(xlabel="u0", ylabel="day", title="u(x = 0.1) reaches 1/2")
panels[2].semilogy(op.history.steps, op.history["defect"])
panels[2].set(xlabel="step", ylabel="defect, about the relative error", title="training")
figure.savefig(folder / "hard_constraints.png", dpi=120)
