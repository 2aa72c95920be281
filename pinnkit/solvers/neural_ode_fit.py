"""Forms of the unknown terms that are fitted one after the other, and where the fit of each stands.

In    an `OrdinaryModule` whose networks have one form, the first guess.
Out   `Fit`, which goes into checkpoints; `best_of` several by their evidence.
Next  `solvers.neural_ode` trains one after the other.

What the terms are is a question the observations answer as they answer what the noise is: each form is
fitted to its end, and the one under which they are most probable is kept (`neural_ode_evidence`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pinnkit.lower.ordinary import OrdinaryModule
from pinnkit.solvers.neural_ode_data import FirstGuess
from pinnkit.solvers.neural_ode_evidence import Evidence
from pinnkit.solvers.neural_ode_shooting import Shooting
from pinnkit.solvers.neural_ode_terms import Form, first_precisions, kept_of, polynomials
from pinnkit.train.residual_model import Memory

__all__ = ["Fit", "begin_from", "best_of", "flat"]

# Noise found over noise seen in second differences, beyond which a fit is a local minimum.
LOST = 2.0


@dataclass
class Fit:
    """The terms in one form: `length` intervals per segment, the weights of the residuals, the step's memory.

    Args:
        form: Of those terms that have no network of the user's own.
        module: The equations with terms of that form; its parameters are those of the first step.
        sigmas: Standard deviations of the observations.
        precisions: Of the priors, by group of parameters.
        memory: The optimiser's; theta in it is the fit.
        evidence: As last estimated; None before, and after a resume.
        log_evidence: What it is worth against other forms; nan before it is known.
    """

    form: Form
    module: OrdinaryModule
    sigmas: list[float]
    precisions: Tensor
    memory: Memory
    length: int = 1
    evidence: Evidence | None = None
    log_evidence: float = math.nan
    tried: int = 0  # steps since the weights were estimated
    refused: int = 0
    rounds: int = 0
    restarts: int = 0
    done: bool = False
    shooting: Shooting | None = None  # while its weights stay

    def state_dict(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "sigmas": list(self.sigmas),
            "precisions": self.precisions.clone(),
            "kept": [k.clone() for k in kept_of(self.module)],
            "memory": dict(self.memory),
            "log_evidence": self.log_evidence,
            "counts": [self.tried, self.refused, self.rounds, self.restarts, int(self.done)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        like = self.memory["theta"]
        self.length, self.sigmas = int(state["length"]), [float(s) for s in state["sigmas"]]
        self.precisions = state["precisions"].to(like)
        for own, stored in zip(kept_of(self.module), state["kept"], strict=True):
            own.copy_(stored)
        self.memory = {
            k: v.to(like) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        self.log_evidence = float(state["log_evidence"])
        counts = (int(n) for n in state["counts"])
        self.tried, self.refused, self.rounds, self.restarts, done = counts
        self.done, self.evidence, self.shooting = bool(done), None, None

    def is_lost(self, guess: FirstGuess) -> bool:
        """Whether some observations are missed by far more than their own scatter."""
        pairs = zip(self.sigmas, guess.sigmas, guess.declared, strict=True)
        if self.log_evidence == -math.inf:  # given up
            return True
        # A declared noise is not re-estimated; what it misses shows in the evidence alone.
        return any(now > LOST * first for now, first, given in pairs if given is None)


def begin_from(fit: Fit, found: Fit, weights: Tensor) -> None:
    """Let a polynomial beside a network begin where the polynomial alone ended; the network is 0 yet.

    Args:
        fit: Of both.
        found: Of the polynomial alone.
        weights: What it ended with, (P,).
    """
    for own, stored in zip(polynomials(fit.module), polynomials(found.module), strict=True):
        own.load_state_dict(stored.state_dict())
    values = dict(
        zip(
            (n for n, _ in found.module.named_parameters()),
            _split(found.module, weights),
            strict=True,
        )
    )
    with torch.no_grad():
        for name, p in fit.module.named_parameters():
            # Sum(polynomial, network) of the one is the polynomial of the other.
            source = values.get(name, values.get(name.replace(".parts.0.", ".")))
            if source is not None:
                p.copy_(source)
    fit.sigmas, fit.length, fit.precisions = (
        list(found.sigmas),
        found.length,
        first_precisions(fit.module),
    )


def best_of(fits: Iterable[Fit]) -> Fit | None:
    """The form that ended with the greatest evidence; None if none has ended."""
    ended = [fit for fit in fits if fit.done]
    return max(ended, key=lambda fit: fit.log_evidence) if ended else None


def flat(module: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def _split(module: nn.Module, weights: Tensor) -> list[Tensor]:
    shapes = [p.shape for p in module.parameters()]
    parts = weights.split([s.numel() for s in shapes])
    return [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
