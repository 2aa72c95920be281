"""The networks of NeuralODE's neural terms, and which prior each of their weights has.

In    widths, the degree of the expansion, a generator.
Out   networks that are 0 at first; the group of every parameter, whose members share a precision.
Next  `solvers.neural_ode` trains them, `neural_ode_evidence` finds the precisions.

A term is p(z) + n(z): a polynomial p in the user's own units and a network n. Each coefficient of p has a
precision of its own, all weights of n one together, found by the evidence (automatic relevance
determination). Beyond that the least certain coefficient c is struck out, and the rest fitted again, as
long as

    (c / its standard deviation)^2 < log N + 2 log K,

N observations and K coefficients at first: what it gains in the likelihood is less than the extended BIC
asks for a monomial chosen out of K. So p ends as few monomials, and n as what they cannot say, which
may be nothing. A network alone fits an orbit as well, but says nothing about points beside it, and a
trajectory predicted far ahead drifts there.

References: tipping2001sparse (precisions of single coefficients), chen2008extended (the price of one).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pinnkit.lower.ordinary import Gauge, OrdinaryModule
from pinnkit.nn import MLP, Polynomial, Sum, zero_output

__all__ = [
    "begin_again",
    "first_precisions",
    "group_of_parameters",
    "kept_of",
    "make_term",
    "measure_expansions",
    "spread_precisions",
    "strike_out",
]

# First precision of a network's weights. Segments hardly feel how a law changes across the trajectory; one
# long segment does, and a law that spreads neighbouring trajectories cannot be fitted there any more.
SMOOTH = 10.0
EXPANDED = 1.0  # of a polynomial's coefficients, which are in units of the rates


def make_term(
    inputs: int,
    outputs: int,
    *,
    width: int,
    depth: int,
    activation: str,
    expansion: int | None,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> nn.Module:
    """A network, beside a polynomial of degree `expansion` if there is one; together 0 at first."""
    net = MLP(
        inputs, outputs, width, depth, activation=activation, generator=generator, dtype=dtype
    )
    zero_output(net)
    if expansion is None:
        return net
    device = generator.device
    return Sum(Polynomial(inputs, outputs, expansion, dtype=dtype, device=device), net)


def measure_expansions(
    module: OrdinaryModule,
    gauges: dict[str, Gauge],
    t: Tensor,  # shape: (n,)
    y: Tensor,  # shape: (n, d)
) -> None:
    """Origins of polynomials in the user's zero, sizes of monomials from states near the solution."""
    terms = {term.name: term for term in module.form.neurals}
    for name, gauge in gauges.items():
        mean, spread = y.new_tensor(gauge.mean), y.new_tensor(gauge.spread)
        with torch.no_grad():
            seen = (module.inputs(terms[name], t, y) - mean) / spread
        for part in module.nets[name].modules():
            if isinstance(part, Polynomial):
                part.measure(seen, -mean / spread)


def begin_again(module: OrdinaryModule, generator: torch.Generator) -> None:
    """Other first weights for every MLP, whole polynomials, no term."""
    for net in module.nets.values():
        for part in net.modules():
            if isinstance(part, MLP):
                fresh = MLP(**part.config, generator=generator, dtype=_dtype(part))
                with torch.no_grad():
                    for own, drawn in zip(part.parameters(), fresh.parameters(), strict=True):
                        own.copy_(drawn)
        zero_output(net)
    for kept in kept_of(module):
        kept.fill_(1.0)


def group_of_parameters(module: OrdinaryModule) -> Tensor:  # shape: (P,), integers
    """Which precision each entry of the vector of parameters has; -1 for unknown numbers."""
    place, parts = 0, []
    shared: dict[str, int] = {}
    single = {
        f"{name}.coefficients" for name, m in module.named_modules() if isinstance(m, Polynomial)
    }
    for name, p in module.named_parameters():
        if not name.startswith("nets."):
            parts.append(torch.full((p.numel(),), -1))
        elif name in single:
            parts.append(torch.arange(place, place + p.numel()))
            place += p.numel()
        else:
            own = name.split(".")[1]
            if own not in shared:
                shared[own] = place
                place += 1
            parts.append(torch.full((p.numel(),), shared[own]))
    return torch.cat(parts).to(next(module.parameters()).device)


def first_precisions(module: OrdinaryModule) -> Tensor:  # shape: (groups,)
    """Before anything is estimated."""
    group = group_of_parameters(module)
    counts = torch.bincount(group[group >= 0])
    like = next(module.parameters())
    # A group of one may also be a network with one weight; then a loose prior does no harm.
    return torch.where(counts == 1, EXPANDED, SMOOTH).to(like)


def strike_out(
    module: OrdinaryModule,
    theta: Tensor,  # shape: (P + states,)
    covariance: Tensor,  # shape: (P + states, P + states)
    observations: int,
) -> tuple[list[int], Tensor]:
    """Strike out coefficients of polynomials that are not worth their price, half of what is left at most.

    Each time the least certain one; what is left is then that of the Gaussian given that it is 0,

        theta - C e_k theta_k / C_kk,    C - C e_k e_k^T C / C_kk,

    so that of two monomials alike along the trajectory one stays. Half, because that is linear theory.

    Args:
        module: Whose polynomials lose them.
        theta, covariance: The module's parameters, then starting states; C.
        observations: N above.

    Returns:
        The groups struck out, and theta without them.
    """
    group = group_of_parameters(module)
    places, begin = {}, 0
    for name, p in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, Polynomial):
            places.update({begin + k: (owner, k) for k in range(p.numel())})
        begin += p.numel()
    alive = [i for i, (owner, k) in places.items() if float(owner.kept.flatten()[k])]
    price = math.log(observations) + 2 * math.log(max(len(places), 1))
    struck: list[int] = []
    theta, covariance = theta.clone(), covariance.clone()
    for _ in range((len(alive) + 1) // 2):
        certainty = theta[alive].square() / covariance.diagonal()[alive].clamp_min(1e-300)
        least = int(certainty.argmin())
        if float(certainty[least]) >= price:
            break
        i = alive.pop(least)
        column = covariance[:, i] / covariance[i, i].clamp_min(1e-300)
        theta = theta - column * theta[i]
        covariance = covariance - column[:, None] * covariance[i]
        theta[i] = 0.0
        owner, k = places[i]
        owner.kept.view(-1)[k] = 0.0
        struck.append(int(group[i]))
    return struck, theta


def kept_of(module: OrdinaryModule) -> list[Tensor]:
    """Of every polynomial, which coefficients are left."""
    return [m.kept for m in module.modules() if isinstance(m, Polynomial)]


def spread_precisions(module: OrdinaryModule, precisions: Tensor) -> Tensor:  # shape: (P,)
    """The precision of every entry's prior, 0 for unknown numbers."""
    group = group_of_parameters(module)
    padded = torch.cat([precisions, precisions.new_zeros(1)])
    return padded[group]  # -1 is the last


def _dtype(net: nn.Module) -> torch.dtype:
    return next(net.parameters()).dtype
