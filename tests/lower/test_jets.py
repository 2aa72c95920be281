"""Jets equal sympy's and autograd's derivatives; rows equal vmap(grad)."""

import itertools
import math

import pytest
import sympy as sp
import torch
from torch import nn

from pinnkit.lower import JetSpec, Tape, activations, input_jet, jacobian_rows, jet_mul, propagate
from pinnkit.lower.jets import _general_jet, propagate_generally
from pinnkit.lower.rows import RowOperator
from pinnkit.lower.tape import NumberSite
from pinnkit.nn import MLP
from tests.nn.test_networks import make

EXACT = 1e-12
ROUNDOFF = 1e-10

FOURTH = JetSpec.closure([(0, 4), (1, 2), (2, 0)], 2)
SECOND = JetSpec.closure([(0, 2), (1, 1)], 2)  # enough for rows, and quick to check


def points_and_jet(n=6, spec=FOURTH):
    gen = torch.Generator().manual_seed(5)
    points = torch.rand(n, spec.dimension, dtype=torch.float64, generator=gen)
    zero = torch.zeros(spec.dimension, dtype=torch.float64)
    return points, input_jet(points, spec, zero, zero + 1)


def networks():
    """Every class, every activation, and a module without a rule; weights away from special values."""
    gen = torch.Generator().manual_seed(7)
    nets = make()
    for name in ("sin", "silu", "gelu", "sigmoid", "softplus"):
        nets[name] = MLP(2, 2, 7, 2, activation=name, generator=gen)
    nets["unknown"] = nn.Sequential(MLP(2, 3, 5, 1, generator=gen), Odd(gen))
    for net in nets.values():
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype, generator=gen))
    return nets


class Odd(nn.Module):
    """A layer the jet rules do not know."""

    def __init__(self, gen):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 2, dtype=torch.float64, generator=gen))

    def forward(self, z):
        return torch.exp(-((z @ self.w) ** 2)) + torch.atan(z @ self.w)


def nested(net, points, alpha):
    """The plain way: autograd, one derivative after the other."""
    inputs = points.clone().requires_grad_()
    columns = []
    for f in range(2):
        value = net(inputs)[:, f]
        for axis, count in enumerate(alpha):
            for _ in range(count):
                value = torch.autograd.grad(value.sum(), inputs, create_graph=True)[0][:, axis]
        columns.append(value)
    return torch.stack(columns, dim=1).detach()


def close(a, b, tol=ROUNDOFF):
    return float((a - b).detach().abs().max()) <= tol * max(1.0, float(b.detach().abs().max()))


@pytest.mark.parametrize("name", list(networks()))
def test_every_network_equals_nested_autograd(name):
    """All coefficients times alpha! are the derivatives."""
    net = networks()[name]
    points, jet = points_and_jet()
    out = propagate(net, jet, FOURTH)
    for s, alpha in enumerate(FOURTH.indices):
        assert close(out[s] * FOURTH.factorials[s], nested(net, points, alpha)), alpha


@pytest.mark.parametrize("name", list(networks()))
def test_general_route_equals_the_rules(name):
    """The fallback through torch.func gives the same jet."""
    net = networks()[name]
    _, jet = points_and_jet()
    assert close(propagate_generally(net, jet, FOURTH), propagate(net, jet, FOURTH))


SYMBOLIC = {
    "tanh": sp.tanh,
    "sin": sp.sin,
    "exp": sp.exp,
    "sigmoid": lambda a: 1 / (1 + sp.exp(-a)),
    "silu": lambda a: a / (1 + sp.exp(-a)),
    "softplus": lambda a: sp.log(1 + sp.exp(a)),
    "gelu": lambda a: a * (1 + sp.erf(a / sp.sqrt(2))) / 2,
}


@pytest.mark.parametrize("name", list(SYMBOLIC))
def test_every_rule_equals_sympy_to_sixth_order(name):
    """Composition with x^2/2 + x, against sympy's Taylor series."""
    spec = JetSpec.closure([(6,)], 1)
    at = sp.Rational(3, 10)
    x = sp.Symbol("x")
    exact = SYMBOLIC[name](x**2 / 2 + x)
    inner = [0.345, 1.3, 0.5, 0.0, 0.0, 0.0, 0.0]
    jet = torch.tensor(inner, dtype=torch.float64)[:, None, None]
    out = activations.activation_jet(jet, activations.RULES[name], spec).flatten()
    for k in range(7):
        want = float(sp.N(sp.diff(exact, x, k).subs(x, at), 20)) / math.factorial(k)
        assert abs(float(out[k]) - want) < ROUNDOFF


@pytest.mark.parametrize("name", list(activations.RULES))
def test_backward_formula_equals_autograd_through_the_recursion(name):
    """First and second derivatives of the hand-written backward (the same points in pieces)."""
    rule = activations.RULES[name]
    gen = torch.Generator().manual_seed(9)
    a = torch.randn(FOURTH.size, 5, 3, dtype=torch.float64, generator=gen).requires_grad_()
    g = torch.randn(FOURTH.size, 5, 3, dtype=torch.float64, generator=gen).requires_grad_()
    fast = activations.activation_jet(a, rule, FOURTH)
    slow = torch.stack(rule(list(a.unbind(0)), FOURTH)[0])
    assert close(fast, slow, EXACT)
    (plain,) = torch.autograd.grad(fast, a, g.detach(), retain_graph=True)
    results = []
    for y in (fast, slow):
        (first,) = torch.autograd.grad(y, a, g, create_graph=True)
        results.append([first, *torch.autograd.grad(first.square().sum(), (a, g))])
    assert close(plain, results[1][0], EXACT)
    for p, q in zip(*results, strict=True):
        assert close(p, q, EXACT)


def test_pieces_do_not_change_the_numbers(monkeypatch):
    """Working in cache-sized pieces is exact."""
    _, jet = points_and_jet(n=50)
    net = networks()["mlp"]
    whole = propagate(net, jet, FOURTH)
    monkeypatch.setattr(activations, "_THREAD_SHARE", 40)
    pieces = propagate(net, jet, FOURTH)
    assert torch.equal(whole, pieces)
    ones = torch.ones_like(pieces)
    grads = torch.autograd.grad(pieces, list(net.parameters()), ones)
    monkeypatch.undo()
    for a, b in zip(grads, torch.autograd.grad(whole, list(net.parameters()), ones), strict=True):
        assert close(a, b, EXACT)


def test_product_rule_is_the_product_of_polynomials():
    """jet_mul of two polynomials' jets is the product's."""
    t, x = sp.symbols("t x")
    f, g = 1 + 2 * t + x**2, 3 * x + t * x + t**2

    def jet_of(expr):
        taylor = sp.Poly(expr, t, x)
        return torch.tensor([float(taylor.coeff_monomial(t**i * x**j)) for i, j in FOURTH.indices])[
            :, None, None
        ]

    assert torch.equal(jet_mul(jet_of(f), jet_of(g), FOURTH), jet_of(sp.expand(f * g)))


def test_a_subclass_with_its_own_forward_takes_the_general_route():
    """The rule of nn.Linear must not answer for something else."""

    class Doubled(nn.Linear):
        def forward(self, z):
            return 2 * super().forward(z) ** 2

    module = Doubled(2, 2, dtype=torch.float64)
    points, jet = points_and_jet()
    out = propagate(module, jet, FOURTH)
    assert close(out[FOURTH.position[0, 2]] * 2, nested(module, points, (0, 2)))


def test_jets_are_differentiable_in_the_points():
    """d(u_xx)/dx of the jet equals u_xxx, twice over."""
    net = networks()["mlp"]
    points = points_and_jet()[0].requires_grad_()
    zero = torch.zeros(2, dtype=torch.float64)
    out = propagate(net, input_jet(points, FOURTH, zero, zero + 1), FOURTH)
    position = FOURTH.position
    second = 2 * out[position[0, 2]][:, 0]
    third = torch.autograd.grad(second.sum(), points, create_graph=True)[0][:, 1]
    fourth = torch.autograd.grad(third.sum(), points)[0][:, 1]
    assert close(third, 6 * out[position[0, 3]][:, 0])
    assert close(fourth, 24 * out[position[0, 4]][:, 0])


@pytest.mark.parametrize("name", ["mlp", "modified", "pirate", "factorised"])
def test_jets_work_under_vmap_and_in_float32(name):
    """vmap over points equals the batch; float32 stays float32."""
    net = networks()[name]
    points, jet = points_and_jet()
    zero = torch.zeros(2, dtype=torch.float64)

    def one(point):
        return propagate(net, input_jet(point[None], FOURTH, zero, zero + 1), FOURTH)[:, 0]

    assert close(torch.func.vmap(one)(points).transpose(0, 1), propagate(net, jet, FOURTH), EXACT)
    single = propagate(net.float(), jet.float(), FOURTH)
    assert single.dtype == torch.float32
    assert close(single.double(), propagate(net.double(), jet, FOURTH), 1e-4)


def residual_columns(jet):
    """Two residuals with products of derivatives."""
    p = SECOND.position
    first = jet[p[1, 0], :, 0] + jet[0, :, 0] * jet[p[0, 1], :, 1] + 0.1 * jet[p[0, 2], :, 0]
    return torch.stack([first, jet[p[1, 1], :, 1] * jet[p[0, 2], :, 0] + jet[0, :, 1] ** 2], dim=1)


def rows_by_vmap(net, points):
    names = [k for k, _ in net.named_parameters()]
    zero = torch.zeros(2, dtype=torch.float64)

    def one(parameters, point):
        jet = input_jet(point[None], SECOND, zero, zero + 1)

        def call(z):
            return torch.func.functional_call(net, parameters, (z,))

        return residual_columns(_general_jet(call, jet, SECOND))[0]

    parameters = {k: p.detach() for k, p in net.named_parameters()}
    blocks = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(parameters, points)
    return torch.cat([blocks[k].reshape(len(points), 2, -1) for k in names], dim=2)


@pytest.mark.parametrize("name", list(networks()))
def test_rows_equal_vmap_grad_and_products_equal_the_dense_ones(name):
    """J, J v and J^T c, for every kind of site."""
    net = networks()[name]
    points, jet = points_and_jet(spec=SECOND)
    params = list(net.parameters())
    tape = Tape()
    operator = RowOperator(residual_columns(propagate(net, jet, SECOND, tape)), tape, params)
    want = rows_by_vmap(net, points)
    assert close(operator.dense(), want, EXACT)
    gen = torch.Generator().manual_seed(11)
    v = torch.randn(want.shape[2], dtype=torch.float64, generator=gen)
    c = torch.randn(want.shape[:2], dtype=torch.float64, generator=gen)
    assert close(operator.matvec(v), want @ v, EXACT)
    assert close(operator.rmatvec(c), torch.einsum("ne,nep->p", c, want), EXACT)


def test_rows_of_many_points_and_into_a_buffer():
    """More points than one piece of the batched product; the buffer is overwritten."""
    net = networks()["mlp"]
    points, jet = points_and_jet(spec=SECOND, n=200)
    params = list(net.parameters())
    tape = Tape()
    residual = residual_columns(propagate(net, jet, SECOND, tape))
    buffer = torch.full((200, 2, sum(p.numel() for p in params)), math.nan, dtype=torch.float64)
    rows = jacobian_rows(residual, tape, params, buffer)
    assert rows is buffer
    assert close(rows, rows_by_vmap(net, points), EXACT)


def test_rows_of_a_network_used_twice_add_up():
    """r = N(x) N(2x): the same parameters at two sites."""
    net = networks()["mlp"]
    _, jet = points_and_jet(spec=SECOND)
    params = list(net.parameters())
    tape = Tape()
    one, two = propagate(net, jet, SECOND, tape), propagate(net, 2 * jet, SECOND, tape)
    rows = jacobian_rows((one[0] * two[0])[:, :1], tape, params)[:, 0]
    value = (propagate(net, jet, SECOND)[0] * propagate(net, 2 * jet, SECOND)[0])[:, 0]
    for i in range(3):
        grads = torch.autograd.grad(value[i], params, retain_graph=True)
        assert close(rows[i], torch.cat([g.flatten() for g in grads]), EXACT)


def test_rows_of_sums_over_blocks_and_of_numbers():
    """Quadrature folds blocks of points into one residual; a number has a column of its own."""
    net = networks()["factorised"]
    _, jet = points_and_jet(spec=SECOND, n=12)
    number = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    params = [*net.parameters(), number]
    tape = Tape()
    k = tape.record(NumberSite(number, 12))[0, :, 0]
    values = k * propagate(net, jet, SECOND, tape)[SECOND.position[0, 2], :, 0]
    rows = jacobian_rows(values.view(3, 4).sum(0)[:, None], tape, params)[:, 0]
    plain = number * propagate(net, jet, SECOND)[SECOND.position[0, 2], :, 0]
    for i in range(4):
        grads = torch.autograd.grad(
            plain.view(3, 4).sum(0)[i], params, retain_graph=True, allow_unused=True
        )
        want = torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(params, grads, strict=True)
            ]
        )
        assert close(rows[i], want, EXACT)


def test_spec_refuses_sets_that_are_not_closed():
    """xx without x cannot be propagated."""
    with pytest.raises(ValueError, match="not closed downwards"):
        JetSpec(((0, 0), (0, 2)))
    with pytest.raises(ValueError, match="repeated"):
        JetSpec(((0,), (1,), (1,)))
    closed = JetSpec.closure([(2, 1)], 2)
    assert set(closed.indices) == set(itertools.product(range(3), range(2)))
