"""Set-up of the suite: tiers, and one thread count for every test.

`--runslow` runs the trained accuracies as well; tests marked `gpu` skip themselves without one.
"""

from __future__ import annotations

import os

import pytest
import torch

# A fixed thread count makes floating-point sums, and so trained parameters, the same from run to
# run; more threads than cores would only make the small matrices of the suite slower. Where the
# suite is shared out to a process per core, one thread each is all there is.
_PER_PROCESS = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1)
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or _PER_PROCESS))

# Figures are drawn into files only; without this a display would be looked for.
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runslow", action="store_true", default=False, help="run tests marked slow as well"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = []
    if not config.getoption("--runslow"):
        skips.append(("slow", pytest.mark.skip(reason="slow: run with --runslow")))
    if not torch.cuda.is_available():
        skips.append(("gpu", pytest.mark.skip(reason="gpu: no accelerator here")))
    for item in items:
        for name, skip in skips:
            if name in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def gen() -> torch.Generator:
    """A generator of its own for each test: nothing is drawn from the global one."""
    return torch.Generator().manual_seed(0)
