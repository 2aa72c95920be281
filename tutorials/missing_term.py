"""A missing term: declare what you know, learn what you do not, write down what was learned.

    python tutorials/missing_term.py [FOLDER]

Predators eat prey, but nobody has written down how often they meet. One noisy trajectory is enough to learn
it, to find its formula, and to predict twice as far with that. Pictures are written to FOLDER (default: out).
"""

import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp

import pinnkit as pk

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# %% 1. What was observed: five units of time, 5 % noise. The truth is kept for the pictures.
end, far = 5.0, np.linspace(0, 10, 401)
orbit = solve_ivp(
    lambda _, z: [1.5 * z[0] - z[0] * z[1], z[0] * z[1] - 3 * z[1]],
    (0, 10), [1, 1], rtol=1e-10, atol=1e-12, dense_output=True,
).sol  # fmt: skip
times = np.linspace(0, end, 101)
clean = orbit(times)
sigma = 0.05 * np.sqrt((clean**2).mean(axis=1, keepdims=True))
seen = clean + sigma * np.random.default_rng(0).normal(size=clean.shape)

# %% 2. What is known: prey multiply, predators die. The two terms in between are networks of both.
t = pk.coords("t")
x, y = pk.field("x", t), pk.field("y", t)
eaten, gained = pk.neural("eaten", inputs=(x, y)), pk.neural("gained", inputs=(x, y))
data = [pk.Observations(x, {t: times}, seen[0]), pk.Observations(y, {t: times}, seen[1])]
system = pk.PDESystem(
    [x.diff(t) - (1.5 * x - eaten), y.diff(t) - (gained - 3 * y)],
    domain=pk.Interval(t, 0, end),
    conditions=data,
)

# %% 3. Learn. A law found in data has no error to check: `ok` is None, and says why.
sol = system.solve(pk.NeuralODE(), seed=0)
print(sol)
print(f"chosen: {sol.stats.more['form']}, out of {sol.stats.more['evidence']}")
assert sol.ok is None

# %% 4. Inside the horizon any form fits; twice as far it is asked where nothing was seen. Networks, short polynomials and
# their sums were fitted, and the form under which the observations are most probable was kept.
ahead = sol(t=far, extrapolate=True)
truth = orbit(far)


def error(found: dict[str, np.ndarray], until: float) -> float:
    """Relative, the larger of the two fields."""
    chosen = far <= until
    pairs = [(found[n][chosen], line[chosen]) for n, line in zip("xy", truth, strict=True)]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


inside, beyond = error(ahead, end), error(ahead, far[-1])
print(f"learned: error {100 * inside:.1f} % to the horizon, {100 * beyond:.1f} % to twice that")
assert inside < 0.05

# %% 5. Read what was learned: of six candidates one is left, twice the same.
library = [1, x, y, x * y, x**2, y**2]
formulas = {term: sol.read(term, library) for term in (eaten, gained)}
for term, formula in formulas.items():
    print(f"{term} = {formula}")
    assert formula.coeff(x * y) * x * y == formula

# %% 6. The formula goes back into the declaration, its factors as unknown numbers: two instead of two networks.
a = pk.parameter("a", initial=float(formulas[eaten].coeff(x * y)))
b = pk.parameter("b", initial=float(formulas[gained].coeff(x * y)))
written = system.remake(equations=[x.diff(t) - (1.5 - a * y) * x, y.diff(t) - (b * x - 3) * y])
final = written.solve(pk.NeuralODE(), seed=0, verify=False)
print(f"a = {final.parameters[a]}, b = {final.parameters[b]}")
known = final(t=far, extrapolate=True)
print(f"formula: error {100 * error(known, far[-1]):.1f} % to twice the horizon")
assert error(known, far[-1]) < 0.03

# %% 7. Pictures.
figure = Figure(figsize=(11, 4), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[2, 1])
left.axvspan(end, far[-1], color="0.95")
for name, line, points, colour in zip("xy", truth, seen, ("tab:blue", "tab:red"), strict=True):
    left.plot(far, line, color=colour, lw=4, alpha=0.25, label=f"{name}, truth")
    left.plot(far, ahead[name], color=colour, lw=1, ls=":", label=f"{name}, learned")
    left.plot(far, known[name], color=colour, lw=1, label=f"{name}, formula")
    left.plot(times, points, ".", color=colour, ms=3)
left.set(xlabel="t", ylim=(0, 1.3 * truth.max()), title="learned to t = 5, predicted beyond")
left.legend(fontsize=8, ncols=2)
states = np.stack([ahead["x"], ahead["y"]], axis=1)[far <= end]
learned = sol.module.term(eaten, 0.0, sol.approximation.state.new_tensor(states)).detach().numpy()
right.plot(states.prod(axis=1), learned, ".", ms=3)
right.plot([0, states.prod(axis=1).max()], [0, states.prod(axis=1).max()], "k-", lw=0.5)
right.set(xlabel="x y", ylabel="eaten, as learned", title="what the network found")
figure.savefig(folder / "missing_term.png", dpi=120)
