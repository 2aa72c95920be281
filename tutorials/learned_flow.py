"""Flow through pores: solve it exactly, differentiate the solution, learn it, and see where learning ends.

    python tutorials/learned_flow.py [FOLDER]

A pore network is a resistor network: one sparse solve gives the pressures. A learned solver sees sixty
small networks and is asked about one ten times as large. Pictures are written to FOLDER (default: out).
"""

import pathlib
import sys

import numpy as np
import torch
from matplotlib.figure import Figure

import pinnkit as pk
from pinnkit.graphs import pore_network

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# %% 1. The declaration: what flows into a pore flows out of it.
p, k = pk.node_field("p"), pk.edge_feature("k")
flow_into = pk.neighbour_sum(k * (p.neighbour - p))
system = pk.GraphSystem(
    [flow_into],
    conditions=[pk.Fixed(p, 1, where="inlet"), pk.Fixed(p, 0, where="outlet")],
)

# %% 2. Exact on one graph, with a proof.
large = pore_network(1000, seed=0)
exact = system.on(large).solve()
print(exact)
assert exact.ok

# %% 3. Learned from small ones. Targets are solved exactly; nobody hands them in.
small = [pore_network(n, seed=n) for n in range(40, 100)]
fast = pk.Adam(lr=0.01, decay=1.0)
solver = pk.ConvergentGraphSolver(heads=4, steps=40, batch=8, optimiser=fast)
op = system.solve(solver, data=small, seed=0, dtype=torch.float32, tol=0.1)
print(op)

# %% 4. On a network more than ten times as large.
found = op.predict(large)
free = ~(large.node["inlet"] | large.node["outlet"])
off = np.abs(found[p] - exact[p])[free]
print(
    f"1000 pores: mean error {100 * off.mean():.2f} % of the drop, largest {100 * off.max():.2f} %"
)
print(f"fixed points certified: {found.certified}, {int(found.record.iterations.max())} iterations")
assert off.mean() < 0.05 and found.certified

# %% 5. What the fixed point is for: the same network without it sees one hop.
local = pk.ConvergentGraphSolver(heads=4, steps=40, batch=8, factor=0.0, optimiser=fast)
near = system.solve(local, data=small, seed=0, dtype=torch.float32, verify=False)
blind = near.predict(large)
off_blind = np.abs(blind[p] - exact[p])[free]
print(f"without the fixed point: {100 * off_blind.mean():.1f} %")
assert off.mean() < off_blind.mean() / 2

# %% 6. Pictures.
figure = Figure(figsize=(11, 4), layout="constrained")
panels = figure.subplots(1, 3)
height = 1e3 * large.node["position"][:, 1]
panels[0].plot(height, exact[p], ".", ms=3, label="exact")
panels[0].plot(height, found[p], ".", ms=3, label="learned")
panels[0].set(xlabel="height / mm", ylabel="p", title="1000 pores")
panels[0].legend()
panels[1].plot(exact[p][free], found[p][free], ".", ms=3, label="learned")
panels[1].plot(exact[p][free], blind[p][free], ".", ms=3, label="without fixed point")
panels[1].plot([0, 1], [0, 1], "k-", lw=0.5)
panels[1].set(xlabel="exact p", ylabel="predicted p")
panels[1].legend()
panels[2].semilogy(op.history.steps, op.history["loss"])
panels[2].set(xlabel="step", ylabel="loss", title="training")
figure.savefig(folder / "learned_flow.png", dpi=120)
