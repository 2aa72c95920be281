"""Implicit layers: a plate pulled in by a voltage, its stiffness found through its equilibria.

    python tutorials/implicit_layers.py [FOLDER]

A plate on a spring hangs over an electrode. The equilibrium is defined by an equation, not by a formula;
`pk.implicit.root` finds it for many voltages at once, is differentiated twice on the way to a fit by
Newton's method, and says which voltages have no equilibrium at all. Then a solver of one's own, and a
bound that is proved. A picture is written to FOLDER (default: out).
"""

import pathlib
import sys
import warnings

import scipy.optimize
import torch
from matplotlib.figure import Figure

from pinnkit.implicit import (
    ContractiveCell,
    ConvergenceError,
    Unrolled,
    differentiable,
    fixed_point,
    root,
)

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)
gen = torch.Generator().manual_seed(0)


# %% 1. The equation.
# Spring k x against attraction V^2 / (gap)^2, gap = d - x. Written in s, x = d (1 - exp(-s)), so that the
# plate cannot pass through the electrode. Dimension 0 counts samples: here voltages. All that the
# equation depends on is passed as a tensor after the start; gradients flow there and nowhere else.
def force(s, volts, k, d):
    gap = d * torch.exp(-s)
    return k * (d - gap) * gap**2 - volts**2


def deflection(volts, k, d, **options):
    s, record = root(force, torch.full_like(volts, 0.05), volts, k, d, **options)
    return d * (1 - torch.exp(-s)), record


true = torch.tensor([2.0, 1.5], dtype=torch.float64)  # k, d
volts = torch.linspace(0.04, 1.19, 24, dtype=torch.float64)
x, record = deflection(volts, *true)

# %% 2. What the record says.
# Above V^2 = 4/27 k d^3 (here 1) the attraction always wins: there is no equilibrium. Those samples
# return their best iterate and say so; the others are what they would be alone.
pull_in = float(torch.sqrt(4 / 27 * true[0] * true[1] ** 3))
print(f"pull-in at {pull_in:.3f} V")
for k in (0, 10, 19, 20, 23):
    print(
        f"V = {volts[k]:.2f}: x = {x[k]:.4f}, converged {bool(record.converged[k])!s:5}"
        f" after {record.iterations[k]:2d} steps, residual {record.residual[k]:.1e}"
    )
assert torch.equal(record.converged, volts < pull_in)
try:
    deflection(volts, *true, throw=True)
except ConvergenceError as error:
    print("throw=True:", str(error).split(";")[0])
    failed = ~error.record.converged
assert int(failed.sum()) == int((volts > pull_in).sum())

# A gradient there would be that of no solution, and asking for it warns. `Unrolled()` differentiates what
# was computed instead, whatever it is.
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    deflection(volts.clone().requires_grad_(), *true)
    deflection(volts.clone().requires_grad_(), *true, backward=Unrolled())
assert len(heard) == 1
print("a gradient asked for:", str(heard[0].message).split(":")[0])

# %% 3. Two numbers from noisy deflections, by Newton's method on the whole fit.
# `torch.func.hessian` goes through the layer: its backward pass is made of differentiable steps. The
# record keeps Newton away from parameters for which some voltage has no equilibrium.
sensors = torch.linspace(0.2, 0.95, 30, dtype=torch.float64)
noise = 0.005
clean, _ = deflection(sensors, *true)
measured = clean + noise * torch.randn(30, generator=gen, dtype=torch.float64)


def loss(p):
    x, _ = deflection(sensors, *p)
    return (x - measured).square().sum() / (2 * noise**2)


p = torch.tensor([3.0, 1.6], dtype=torch.float64)
path = [(p, float(loss(p)))]
for _ in range(20):
    g, h = torch.func.grad(loss)(p), torch.func.hessian(loss)(p)
    damped = torch.linalg.eigh(h)
    direction = damped.eigenvectors @ (damped.eigenvectors.T @ g / damped.eigenvalues.abs())
    t = 1.0
    while True:
        trial = p - t * direction
        found, exists = deflection(sensors, *trial)
        if bool((trial > 0).all() and exists.converged.all()) and loss(trial) <= path[-1][1]:
            break
        t /= 2
        if t < 1e-9:
            trial = p
            break
    p = trial
    path.append((p, float(loss(p))))
    if float(direction.norm()) < 1e-9:
        break
spread = torch.linalg.inv(torch.func.hessian(loss)(p)).diagonal().sqrt()
print(f"{len(path) - 1} Newton steps, loss {path[-1][1]:.3f}")
for name, value, deviation, truth in zip("kd", p, spread, true):
    print(f"{name} = {value:.4f} +- {deviation:.4f} (true: {truth})")
    assert abs(value - truth) < 4 * deviation
assert float(torch.func.grad(loss)(p).abs().max()) < 1e-6


# %% 4. Second derivatives of the equilibrium itself.
# How the plate softens: dx/dV and d2x/dV2, against differences of the layer's own values.
def along(v):
    return deflection(v, *true)[0]


v = sensors.clone().requires_grad_()
(first,) = torch.autograd.grad(along(v).sum(), v, create_graph=True)
(second,) = torch.autograd.grad(first.sum(), v)
h = 1e-4
difference = (along(sensors + h) - 2 * along(sensors) + along(sensors - h)) / h**2
print(f"d2x/dV2 off differences by {float(((second - difference) / second).abs().max()):.1e}")
assert torch.allclose(second, difference, rtol=1e-4)


# %% 5. A solver of one's own.
# Anything may find the answer: say what it satisfies, and it is differentiable, and checked.
@differentiable(force)
def by_brent(volts, k, d):
    def one(v):
        def unbalanced(s):
            return float(force(torch.tensor(s, dtype=k.dtype), v, k, d))

        return scipy.optimize.brentq(unbalanced, 0.0, 0.4, xtol=1e-14)

    return torch.tensor([one(v) for v in volts], dtype=volts.dtype)


slope_by = []
for solver in (lambda v: by_brent(v, *true)[0], lambda v: root(force, v * 0, v, *true)[0]):
    w = sensors[:10].clone().requires_grad_()
    slope_by.append(torch.autograd.grad(solver(w).sum(), w)[0])
print(
    f"scipy's roots, our gradients: equal to {float((slope_by[0] - slope_by[1]).abs().max()):.0e}"
)
assert torch.allclose(*slope_by, rtol=1e-9)

# %% 6. A bound that is proved.
# Where the map is a contraction, |z - z*| <= (|f(z) - z| + rounding) / (1 - factor). A cell that contracts
# by construction carries its certificate; three steps are enough to see the bound at work.
learned = ContractiveCell(8, 2, factor=0.9, generator=gen)
inputs = torch.randn(5, 2, generator=gen, dtype=torch.float64)
zero = torch.zeros(5, 8, dtype=torch.float64)
with torch.no_grad():
    proof = learned.contraction()
    early, rough = fixed_point(learned, zero, inputs, contraction=proof, max_steps=3)
    late, fine = fixed_point(learned, zero, inputs, contraction=proof, max_steps=200)
true_error = (early - late).abs().amax(1)
print(f"after 3 steps: error {float(true_error.max()):.1e}, proved {float(rough.error.max()):.1e};")
print(f"in the end proved {float(fine.error.max()):.1e}")
assert rough.certified.all() and (true_error <= rough.error + fine.error).all()

# %% 7. Picture.
figure = Figure(figsize=(11, 3.6), layout="constrained")
panels = figure.subplots(1, 3)
ok = record.converged
panels[0].plot(volts[ok], x[ok], "C0o-", label="equilibria")
panels[0].plot(volts[~ok], x[~ok], "C3x", label="converged: False")
panels[0].axvline(pull_in, color="k", lw=0.8, ls="--")
panels[0].plot(sensors, measured, "k.", ms=3, label="sensors")
panels[0].set(title="deflection", xlabel="V", ylabel="x")
panels[0].legend()
lowest = path[-1][1]
panels[1].semilogy([max(value - lowest, 1e-13) for _, value in path[:-1]], "C0o-")
panels[1].set(title="loss above the minimum", xlabel="Newton step")
panels[2].plot(sensors, first.detach(), label="dx/dV")
panels[2].plot(sensors, second / 10, label="d2x/dV2 / 10")
panels[2].set(title="derivatives of the equilibrium", xlabel="V")
panels[2].legend()
figure.savefig(folder / "implicit_layers.png", dpi=110)
print("picture:", folder / "implicit_layers.png")
