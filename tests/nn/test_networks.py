"""Networks are plain, seeded, typed modules that can be written down as data."""

import json

import pytest
import torch

from pinnkit.nn import (
    MLP,
    Chain,
    ModifiedMLP,
    PeriodicFeatures,
    PirateNet,
    Polynomial,
    Product,
    RandomFourierFeatures,
    Select,
    SideBySide,
    Sum,
    describe,
    rebuild,
    zero_output,
)

EXACT = 1e-13


def make(seed=0, dtype=torch.float64):
    """One of every class, from two columns to two outputs."""
    gen = torch.Generator().manual_seed(seed)

    def mlp(inputs, outputs, **kw):
        return MLP(inputs, outputs, 7, 2, generator=gen, dtype=dtype, **kw)

    periodic = PeriodicFeatures(2, {1: 2.0}, harmonics={1: 3}, dtype=dtype)
    fourier = RandomFourierFeatures(2, 4, scale=2.0, generator=gen, dtype=dtype)
    return {
        "mlp": mlp(2, 2),
        "factorised": mlp(2, 2, factorised=True),
        "modified": ModifiedMLP(2, 2, 7, 2, generator=gen, dtype=dtype),
        "pirate": PirateNet(2, 2, 7, 1, generator=gen, dtype=dtype),
        "sum": Sum(mlp(2, 2), mlp(2, 2, activation="sin")),
        "product": Product(mlp(2, 2), mlp(2, 2, activation="silu")),
        "periodic": Chain(periodic, mlp(periodic.outputs, 2)),
        "fourier": Chain(fourier, mlp(fourier.outputs, 2)),
        "polynomial": Sum(Polynomial(2, 2, 3, dtype=dtype), mlp(2, 2)),
        "fields": SideBySide(mlp(2, 1), Select([1], mlp(1, 1))),
    }


@pytest.mark.parametrize("name", list(make()))
def test_description_rebuilds_the_same_function(name):
    """describe -> JSON -> rebuild -> load_state_dict gives the same values."""
    net = make()[name]
    copy = rebuild(json.loads(json.dumps(describe(net))))
    copy.load_state_dict(net.state_dict())
    z = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(net(z), copy(z))


@pytest.mark.parametrize("name", list(make()))
def test_same_seed_same_network_and_no_global_draws(name):
    """Initial weights come from the generator alone."""
    before = torch.random.get_rng_state()
    first, second = make()[name], make()[name]
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_an_argument_not_the_default(dtype):
    """All parameters, buffers and outputs have the asked dtype."""
    for net in make(dtype=dtype).values():
        assert {t.dtype for t in net.state_dict().values()} == {dtype}
        assert net(torch.zeros(3, 2, dtype=dtype)).dtype == dtype


def test_periodic_network_is_periodic_in_its_column_only():
    """A shift by one period changes nothing; the other column is free."""
    net = make()["periodic"]
    z = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    shift = torch.tensor([0.0, 2.0], dtype=torch.float64)
    assert (net(z + shift) - net(z)).abs().max() < EXACT
    assert (net(z + shift.flip(0)) - net(z)).abs().max() > 1e-3


def test_pirate_net_starts_linear_in_its_lifted_features():
    """alpha = 0: the blocks pass their input on."""
    net = make()["pirate"]
    z = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    lifted = net.activation(net.lift(z))
    assert (net(z) - net.last(lifted)).abs().max() < EXACT


def test_wrong_arguments_are_named():
    """Sizes, activations and columns are checked when built."""
    gen = torch.Generator()
    with pytest.raises(ValueError, match=r"width.*0"):
        MLP(1, 1, 0, 2, generator=gen)
    with pytest.raises(ValueError, match=r"activation='relux'.*tanh"):
        MLP(1, 1, 4, 2, activation="relux", generator=gen)
    with pytest.raises(ValueError, match=r"columns \[3\]"):
        PeriodicFeatures(2, {3: 1.0}, dtype=torch.float64)
    with pytest.raises(TypeError, match="cannot be written to a file"):
        describe(torch.nn.Bilinear(1, 1, 1))
    with pytest.raises(ValueError, match="not a network this package can build: 'system'"):
        rebuild({"class": "system", "arguments": {}})


@pytest.mark.parametrize("name", list(make()))
def test_zero_output_is_zero_and_learns(name):
    """N = 0 everywhere, and its gradient is not."""
    net = make()[name]
    assert zero_output(net)
    z = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = net(z)
    assert torch.equal(out, torch.zeros_like(out))
    out.sum().backward()
    assert any(bool((p.grad != 0).any()) for p in net.parameters() if p.grad is not None)


def test_zero_output_leaves_features_and_strangers_alone():
    """Only the last link of a chain is set to zero; a module of the user's is not touched."""
    gen = torch.Generator().manual_seed(0)
    first, last = MLP(2, 3, 7, 2, generator=gen), MLP(3, 2, 7, 2, generator=gen)
    assert zero_output(Chain(first, last))
    assert float(list(first.parameters())[-2].detach().abs().max()) > 0
    stranger = torch.nn.Linear(2, 2)
    before = stranger.weight.detach().clone()
    assert not zero_output(stranger)
    assert torch.equal(stranger.weight, before)
