"""A polynomial beside a network: its monomials, their sizes, what is struck out, its description."""

import json

import pytest
import torch

from pinnkit.nn import Polynomial, describe, rebuild


def points() -> torch.Tensor:
    gen = torch.Generator().manual_seed(0)
    return torch.randn(50, 2, generator=gen, dtype=torch.float64)


def cubic() -> Polynomial:
    """Of degree 3 about (-2, 1), with coefficients 1, 2, 3, ..."""
    law = Polynomial(2, 1, 3)
    law.measure(points(), torch.tensor([-2.0, 1.0], dtype=torch.float64))
    with torch.no_grad():
        law.coefficients.copy_(torch.arange(1.0, 11.0)[None])
    return law


def test_monomials_are_those_of_the_shifted_inputs():
    """1, x, y, x^2, x y, y^2, ..., each of mean square 1 where it was measured."""
    law = cubic()
    z = points()
    x, y = (z - torch.tensor([-2.0, 1.0])).unbind(1)
    by_hand = torch.stack(
        [x**0, x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3], dim=1
    )
    torch.testing.assert_close(law.monomials(z) * law.sizes, by_hand)
    torch.testing.assert_close(law.monomials(z).square().mean(0), torch.ones(10).double())


def test_what_is_struck_out_is_no_part_of_it():
    """Neither in value nor in gradient."""
    law, z = cubic(), points()
    law.kept[0, 4] = 0
    expected = law.monomials(z) @ (law.coefficients * (torch.arange(10) != 4)).T
    torch.testing.assert_close(law(z), expected)
    law(z).sum().backward()
    assert law.coefficients.grad is not None
    assert (law.coefficients.grad[0] != 0).tolist() == [k != 4 for k in range(10)]


def test_a_monomial_that_vanishes_everywhere_stays_finite():
    law = Polynomial(1, 1, 2)
    law.measure(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert law.sizes.tolist() == [1.0, 1.0, 1.0]


def test_description_rebuilds_the_same_function():
    law, z = cubic(), points()
    law.kept[0, 1] = 0
    again = rebuild(json.loads(json.dumps(describe(law))))
    again.load_state_dict(law.state_dict())
    assert torch.equal(again(z), law(z))


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="degree=-1"):
        Polynomial(1, 1, -1)
