"""Conditioning: unknowns added to a factor that is known, rows that arrive in blocks, tones of scattered data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinnkit.gp import posterior
from pinnkit.gp.frequencies import scattered_tones
from pinnkit.gp.posterior import StackedRows, border, condition

ROUNDOFF = 1e-9  # columns differ in size by 1e6


def test_a_bordered_factor_is_that_of_the_whole_problem(gen):
    """Two more unknowns: mean, precision and evidence of one QR of everything."""
    rows = torch.randn(40, 12, dtype=torch.float64, generator=gen)
    rows = rows * torch.logspace(-3, 3, 12, dtype=torch.float64)
    columns = torch.randn(40, 2, dtype=torch.float64, generator=gen)
    values = torch.randn(40, dtype=torch.float64, generator=gen)
    prior, prior_of_others = torch.full((12,), 2.0).double(), torch.tensor([3.0, 50.0]).double()
    others = torch.tensor([0.4, -1.0], dtype=torch.float64)
    inner = condition(rows, values - columns @ others, prior)
    residual = rows @ inner.mean + columns @ others - values
    found = border(inner, rows, prior, residual, columns, others, prior_of_others)
    both = torch.cat([prior, prior_of_others])
    slow = condition(torch.cat([rows, columns], dim=1), values, both)
    assert torch.allclose(found.mean, slow.mean, atol=ROUNDOFF)
    precision = slow.factor.T @ slow.factor
    assert torch.allclose(found.factor.T @ found.factor, precision, rtol=ROUNDOFF, atol=1e-6)
    assert torch.allclose(found.determined(both), slow.determined(both), atol=ROUNDOFF)
    # At the others' own most likely values the evidences agree as well.
    others = slow.mean[12:]
    inner = condition(rows, values - columns @ others, prior)
    residual = rows @ inner.mean + columns @ others - values
    found = border(inner, rows, prior, residual, columns, others, prior_of_others)
    assert found.objective == pytest.approx(slow.objective, rel=1e-9)
    assert found.log_evidence == pytest.approx(slow.log_evidence, rel=1e-9)


def test_rows_in_blocks_keep_their_products(gen, monkeypatch):
    """However few are kept at a time."""
    monkeypatch.setattr(posterior, "MOST_NUMBERS", 100)
    rows = torch.randn(60, 5, dtype=torch.float64, generator=gen)
    stacked = StackedRows()
    for block in rows.split(7):
        stacked.append(block)
    triangle = stacked.triangle()
    assert triangle.shape == (5, 5)
    assert torch.allclose(triangle.T @ triangle, rows.T @ rows)


@pytest.mark.parametrize("seed", range(4))
def test_tones_of_scattered_readings_are_found_beside_the_grid(seed):
    """Two tones in 200 readings with 5 % noise, none on the periodogram's grid (its step is 0.25)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 2 * np.pi, 200)
    wave = np.sin(94.1 * x) + np.sin(106.15 * x)
    tones = scattered_tones(x, wave + 0.05 * rng.normal(size=200), 2 * np.pi)
    # The Cramer-Rao bound of a frequency is 0.0014 here.
    assert sorted(tones) == pytest.approx([94.1, 106.15], abs=0.01)
