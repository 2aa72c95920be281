"""The start of an `MLP`: `gain` makes the first features steep, `spread` puts them apart."""

import pytest
import torch

from pinnkit.nn import MLP, describe, rebuild
from pinnkit.nn.layers import FactorisedLinear

ROUNDOFF = 1e-14


def start(gain=1.0, spread=0.0, *, width=40, factorised=False, seed=0):
    """(weights, biases) of all linear layers, first to last."""
    net = MLP(
        2,
        3,
        width,
        3,
        gain=gain,
        spread=spread,
        factorised=factorised,
        generator=torch.Generator().manual_seed(seed),
    )
    weights, biases = [], []
    for layer in list(net.layers)[::2]:
        if isinstance(layer, FactorisedLinear):
            weights.append((layer.factor[:, None] * layer.direction).detach())
        else:
            assert isinstance(layer, torch.nn.Linear)
            weights.append(layer.weight.detach())
        biases.append(layer.bias.detach())
    return weights, biases


@pytest.mark.parametrize("factorised", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_gain_is_a_factor_on_the_first_layer_alone(factorised, spread):
    """W_1 -> gain W_1; the draws of all other layers stay as they are, with or without biases."""
    plain, _ = start(spread=spread, factorised=factorised)
    steep, _ = start(gain=2.5, spread=spread, factorised=factorised)
    assert (steep[0] - 2.5 * plain[0]).abs().max() < ROUNDOFF
    for a, b in zip(steep[1:], plain[1:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("factorised", [False, True])
def test_spread_gives_hidden_layers_uniform_biases(factorised):
    """Biases fill [-spread, spread] evenly in every hidden layer, each its own; the last keeps 0."""
    spread, n = 0.7, 1000
    _, biases = start(spread=spread, width=n, factorised=factorised)
    for bias in biases[:-1]:
        assert bias.abs().max() <= spread
        # Kolmogorov's distance to the uniform law exceeds 1.95 / sqrt(n) once in a thousand draws.
        law = (bias.sort().values / spread + 1) / 2
        steps = torch.arange(1, n + 1, dtype=torch.float64) / n
        assert (law - steps).abs().max() < 1.95 / n**0.5
    assert not torch.equal(biases[0], biases[1])
    assert torch.equal(biases[-1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("factorised", [False, True])
def test_spread_changes_no_weight(factorised):
    """Biases are drawn after the weights, so that the same seed gives the same weights."""
    plain, zeros = start(factorised=factorised)
    spread, _ = start(spread=0.7, factorised=factorised)
    assert all(torch.equal(a, b) for a, b in zip(plain, spread, strict=True))
    assert all(not bias.any() for bias in zeros)


def test_defaults_draw_what_a_plain_network_draws():
    """gain = 1 and spread = 0 are the plain Glorot start, and take nothing more from the generator."""
    gens = [torch.Generator().manual_seed(4) for _ in range(2)]
    plain = MLP(2, 1, 8, 2, generator=gens[0])
    named = MLP(2, 1, 8, 2, gain=1.0, spread=0.0, generator=gens[1])
    for a, b in zip(plain.parameters(), named.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(gens[0].get_state(), gens[1].get_state())
    weights, _ = start(width=1000)
    # Variance 2 / (2 + 1000) of 2000 draws, to four standard deviations of its estimate.
    ratio = float(weights[0].square().mean()) * (2 + 1000) / 2
    assert abs(ratio - 1) < 4 * (2 / weights[0].numel()) ** 0.5


def test_same_seed_same_start():
    """The generator alone decides; another seed gives another start."""
    first, second, other = (start(2.0, 1.0, seed=s) for s in (5, 5, 6))
    for weights_or_biases in zip(first, second, other, strict=True):
        for a, b, c in zip(*weights_or_biases, strict=True):
            assert torch.equal(a, b)
            assert not torch.equal(a, c) or not a.any()  # the last bias is 0 for every seed


def test_gain_and_spread_are_written_down():
    """A rebuilt network says so; its values come with the state."""
    net = MLP(1, 1, 4, 2, gain=2.0, spread=1.0, dtype=torch.float32, generator=torch.Generator())
    copy = rebuild(describe(net))
    assert isinstance(copy, MLP)
    assert (copy.config["gain"], copy.config["spread"]) == (2.0, 1.0)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
