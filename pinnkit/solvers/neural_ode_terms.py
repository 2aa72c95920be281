"""The networks of NeuralODE's neural terms, and which prior each of their weights has.

In    widths, the degree of the expansion, a generator.
Out   networks that are 0 at first; the group of every parameter, whose members share a precision.
Next  `solvers.neural_ode` trains them, `neural_ode_evidence` finds the precisions.

A term is n(z), p(z), or p(z) + n(z): a network n, a polynomial p in the user's own units, or both. Each coefficient of p has a
precision of its own, all weights of n one together, found by the evidence (automatic relevance
determination). Beyond that the least certain coefficient c is struck out, and the rest fitted again, as
long as

    (c / its standard deviation)^2 < log N + 2 log K,

N observations and K coefficients at first: what it gains in the likelihood is less than the extended BIC
asks for a monomial chosen out of K. So p ends as few monomials, and n as what they cannot say. A network alone fits an orbit as well, but says nothing about points beside it, and a
trajectory predicted far ahead drifts there.

References: tipping2001sparse (precisions of single coefficients), chen2008extended (the price of one),
kass1995bayes (what strong evidence is).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from pinnkit.declare.stochastic import Neural
from pinnkit.lower.ordinary import Gauge, OrdinaryModule
from pinnkit.nn import MLP, Polynomial, Sum, zero_output

__all__ = [
    "Form",
    "affordable_degree",
    "begin_again",
    "choice_price",
    "first_precisions",
    "forms_of",
    "group_of_parameters",
    "kept_of",
    "make_term",
    "measure_expansions",
    "polynomials",
    "spread_precisions",
    "strike_out",
]

# First precision of a network's weights. Segments hardly feel how a law changes across the trajectory; one
# long segment does, and a law that spreads neighbouring trajectories cannot be fitted there any more.
SMOOTH = 10.0
# A network beside a polynomial has to be 20 times as probable, which is what strong evidence means (Kass and
# Raftery): beyond the observations it says anything, so a little that it explains of their noise does harm.
BESIDE = 3.0
FIRST_DEGREE = 2  # of the smallest polynomial tried; what is too much of it is struck out
EXPANDED = 1.0  # of a polynomial's coefficients, which are in units of the rates


@final
@dataclass(frozen=True)
class Form:
    """What a term is: a polynomial of this degree (None for none), a network, or both.

    >>> str(Form(2, network=True))
    'degree 2 + network'
    """

    degree: int | None
    network: bool

    def __str__(self) -> str:
        parts = [] if self.degree is None else [f"degree {self.degree}"]
        return " + ".join(parts + ["network"] * self.network)


def forms_of(
    neurals: Sequence[Neural], expansion: int | None, observations: int
) -> tuple[Form, ...]:
    """The forms worth a fit, a network first; networks of the user's own have no other."""
    alone = Form(None, network=True)
    if expansion is None or all(n.net is not None for n in neurals):
        return (alone,)
    top = affordable_degree(neurals, expansion, observations)
    degrees = range(min(FIRST_DEGREE, top), top + 1)
    return (alone, *(Form(d, network=also) for also in (False, True) for d in degrees))


def affordable_degree(neurals: Sequence[Neural], expansion: int, observations: int) -> int:
    """The largest degree up to `expansion` whose coefficients are at most half as many as the observations."""
    widths = [len(n.inputs) for n in neurals if n.net is None]
    degree = expansion
    while degree > 1 and 2 * sum(math.comb(w + degree, degree) for w in widths) > observations:
        degree -= 1
    return degree


def make_term(
    inputs: int,
    outputs: int,
    *,
    form: Form,
    width: int,
    depth: int,
    activation: str,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> nn.Module:
    """A network, a polynomial, or their sum, 0 at first."""
    parts: list[nn.Module] = []
    if form.degree is not None:
        device = generator.device
        parts.append(Polynomial(inputs, outputs, form.degree, dtype=dtype, device=device))
    if form.network:
        parts.append(
            MLP(
                inputs,
                outputs,
                width,
                depth,
                activation=activation,
                generator=generator,
                dtype=dtype,
            )
        )
        zero_output(parts[-1])
    return parts[0] if len(parts) == 1 else Sum(*parts)


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


def polynomials(module: OrdinaryModule) -> list[Polynomial]:
    """Those among the networks."""
    return [m for m in module.modules() if isinstance(m, Polynomial)]


def kept_of(module: OrdinaryModule) -> list[Tensor]:
    """Of every polynomial, which coefficients are left."""
    return [m.kept for m in polynomials(module)]


def choice_price(module: OrdinaryModule, form: Form) -> float:
    """-log of the prior of a form and of the monomials left, up to what all forms share.

    A network and a polynomial are alike, both together rarer by exp(-BESIDE); every number of monomials is
    as probable as any, and then every choice of as many.
    """
    price = BESIDE if form.network and form.degree is not None else 0.0
    for kept in kept_of(module):
        of, left = kept.numel(), int(kept.sum())
        price += math.log(of + 1) + math.log(math.comb(of, left))
    return price


def spread_precisions(module: OrdinaryModule, precisions: Tensor) -> Tensor:  # shape: (P,)
    """The precision of every entry's prior, 0 for unknown numbers."""
    group = group_of_parameters(module)
    padded = torch.cat([precisions, precisions.new_zeros(1)])
    return padded[group]  # -1 is the last


def _dtype(net: nn.Module) -> torch.dtype:
    return next(net.parameters()).dtype
