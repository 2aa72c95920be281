"""From an equation to an answer that knows how wrong it is, in a minute.

    python tutorials/first_solution.py

Declares an initial value problem and a heat equation, solves both with the default solver, looks at
the evidence, calls the solutions, asks for derivatives, saves and loads, and finally hands in a wrong
answer to see it refused.
"""

import pathlib
import tempfile

import numpy as np
import sympy as sp

import pinnkit as pk

# 1. An ordinary differential equation: logistic growth from a tenth of the capacity.
t = pk.coords("t")
y = pk.field("y", t)
growth = pk.PDESystem(
    [sp.Eq(y.diff(t), 3 * y * (1 - y))],
    domain=pk.Interval(t, 0, 2),
    conditions=[pk.Initial(y, sp.Rational(1, 10))],
)
sol = growth.solve(time_limit=20, seed=0)
print(sol)
exact = 1 / (1 + 9 * sp.exp(-3 * t))
print("true error", sol.error(exact))
assert sol.ok
assert sol.error(exact) < 1e-4

# 2. A partial differential equation: heat in a rod, cold ends.
t, x = pk.coords("t x")
u = pk.field("u", t, x)
rod = pk.PDESystem(
    [u.diff(t) - u.diff(x, 2) / 10],
    domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
    conditions=[pk.Initial(u, sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
)
print(rod.diagnose())
sol = rod.solve(time_limit=25, seed=0)
print(sol)
assert sol.ok

# 3. The solution is a function; any expression in the fields and their derivatives is one, too.
print("u at noon:", sol(t=0.5, x=[0.25, 0.5, 0.75]))
print("flux at the left end:", sol[-u.diff(x) / 10](t=np.linspace(0, 1, 3), x=0.0))
print(sol.grid(t=3, x=5))

# 4. It can be saved; the file holds the equations, the network and the evidence, and no code.
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "rod.pinn"
    sol.save(path)
    again = pk.load(path)
    assert np.allclose(again(t=0.3, x=0.4), sol(t=0.3, x=0.4))

# 5. Anyone's answer can be judged. This one cools too fast.
wrong = sp.exp(-2 * t) * sp.sin(sp.pi * x)
verdict = pk.verify(rod, wrong)
print("a wrong answer:", verdict.error, "ok:", verdict.ok)
assert not verdict.ok
