"""High frequencies: a Gaussian process whose spectrum finds them, and what it is really for.

    python tutorials/high_frequency.py [FOLDER]

A hundred periods defeat networks; here they take a second, and nobody says the frequency. On plain
boxes with exact data a Chebyshev solve is as good: the process earns its keep where data are noisy and
scattered, numbers are unknown, and a deviation is wanted. Pictures are written to FOLDER (default: out).
"""

import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure

import pinnkit as pk
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    ChirpPoisson1D,
    Helmholtz1D,
    HighFrequencyPoisson1D,
)

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# %% 1. A hundred periods, no frequency given.
# The source's spectrum is divided by the operator's symbol; its peaks become components of the kernel.
fast = HighFrequencyPoisson1D(k=100, slow=6)
sol = fast.solve(pk.SpectralMixtureGP())
print("sin 6x cos 100x:", f"E = {sol.error_estimate:.1e} in {sol.stats.seconds:.2f} s")
print("components:", [round(w, 1) for w in sol.stats.more["frequencies"]["x"]])
assert sol.ok and sol.error_estimate < 1e-7

# %% 2. Frequencies that no datum shows, and a whole band of them.
# Without a source the dispersion relation tells; a chirp is covered by several components.
hidden = Helmholtz1D(k=50).solve(pk.SpectralMixtureGP())
chirp = ChirpPoisson1D(rate=60).solve(pk.SpectralMixtureGP())
print(f"Helmholtz: E = {hidden.error_estimate:.1e}, chirp: E = {chirp.error_estimate:.1e}")
assert hidden.ok and chirp.ok

# %% 3. Noisy sensors and an unknown number.
# u'' + k u = 0 and 60 measurements: the posterior gives the wave with a band and k with an error.
x = pk.coords("x")
u, k = pk.field("u", x), pk.parameter("k", initial=3.0, bounds=(0.5, 10))
rng = np.random.default_rng(0)
places = np.sort(rng.uniform(0, 5, 60))
measured = np.sin(2 * places) + 0.1 * rng.normal(size=60)
spring = pk.PDESystem(
    [u.diff(x, 2) + k * u],
    domain=pk.Interval(x, 0, 5),
    conditions=[pk.Initial(u, 0, at=x), pk.Observations(u, {x: places}, measured, noise=0.1)],
)
fitted = spring.solve(pk.SpectralMixtureGP(), verify=False)
found = fitted.parameters[k]
print(f"k = {found.value:.3f} +- {found.stderr:.3f} (true: 4)")
assert abs(found.value - 4) < 4 * found.stderr

# %% 4. What the data cannot tell.
# Heat conducted steadily between fixed temperatures looks the same for every conductivity.
rod = pk.PDESystem(
    [k * u.diff(x, 2)],
    domain=pk.Interval(x, 0, 1),
    conditions=[
        pk.Dirichlet(u, x, on=pk.boundary(x)),
        pk.Observations(u, {x: places / 5}, places / 5, noise=0.01),
    ],
)
blind = rod.solve(pk.SpectralMixtureGP(), verify=False)
print("steady rod:", blind.status.name)
assert blind.status is pk.Status.NOT_IDENTIFIABLE

# %% 5. Pictures.
figure = Figure(figsize=(11, 7), layout="constrained")
panels = figure.subplots(2, 2)
near = np.linspace(0, 1, 1201)
panels[0, 0].plot(near, sol(x=near), lw=0.8)
panels[0, 0].set(title="sin 6x cos 100x, the first sixth", xlabel="x", ylabel="u")
panels[0, 1].plot(near, chirp(x=near), lw=0.8)
panels[0, 1].set(title="a chirp", xlabel="x")
everywhere = np.linspace(0, 5, 301)
mean, std = fitted(x=everywhere), fitted.std(x=everywhere)
panels[1, 0].plot(places, measured, "k.", ms=4, label="sensors")
panels[1, 0].plot(everywhere, mean, "C0", label="posterior mean")
panels[1, 0].fill_between(everywhere, mean - 2 * std, mean + 2 * std, color="C0", alpha=0.3)
panels[1, 0].set(title=f"k = {found.value:.3f} +- {found.stderr:.3f}", xlabel="x", ylabel="u")
panels[1, 0].legend()
for draw in fitted.sample(5, x=everywhere):
    panels[1, 1].plot(everywhere, draw - np.sin(2 * everywhere), lw=0.8)
panels[1, 1].plot(everywhere, 2 * std, "k--", lw=0.8)
panels[1, 1].plot(everywhere, -2 * std, "k--", lw=0.8)
panels[1, 1].set(title="posterior samples minus the truth", xlabel="x")
figure.savefig(folder / "high_frequency.png", dpi=110)
print("picture:", folder / "high_frequency.png")
