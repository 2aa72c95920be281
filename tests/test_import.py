"""`import pinnkit` is fast, silent, and leaves no trace. Each test uses a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys

LATE = ("deepxde", "matplotlib", "torchsde", "torchdiffeq", "gpytorch", "xarray")


def fresh(code: str) -> str:
    # Compiled files may be written, or every start would compile sympy and all else again.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert run.stderr == ""
    return run.stdout


def test_loads_none_of_the_heavy_packages():
    """They are imported when used."""
    code = f"import sys, pinnkit; print([n for n in {LATE!r} if n in sys.modules])"
    assert fresh(code).strip() == "[]"


def test_is_silent_and_changes_no_global_state():
    """Default dtype and device, random states, warning filters, environment: as torch left them."""
    code = """
import os, random, warnings, json
import numpy, sympy, scipy, torch, tqdm
def traces():
    return [str(torch.get_default_dtype()), str(torch.get_default_device()), torch.get_num_threads(),
            torch.random.get_rng_state().sum().item(), str(numpy.random.get_state()), str(random.getstate()),
            str(warnings.filters), sorted(os.environ.items())]
before = traces()
import pinnkit
print(json.dumps(before == traces()))
"""
    assert json.loads(fresh(code)) is True


def test_takes_at_most_two_seconds_after_torch():
    """Processor time, which a busy machine does not change; measured 0.5 s, most of it sympy."""
    code = """
import time, torch
start = time.process_time()
import pinnkit
print(time.process_time() - start)
"""
    assert any(float(fresh(code)) <= 2.0 for _ in range(2))
