"""A target of series without an equation: labels or numbers that a recurrent network learns to read off.

In    series with labels or targets.
Out   `SeriesTarget`, a problem for `NeuralSDE`.
Next  `solution.series_recurrent` holds the network; it is what equations are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

import sympy as sp

from pinnkit.declare.printing import refusal
from pinnkit.declare.problem import AbstractProblem
from pinnkit.declare.series import IrregularSeries
from pinnkit.errors import UnsupportedProblemError

__all__ = ["SeriesTarget"]


@final
class SeriesTarget(AbstractProblem):
    """Labels or targets of series, predicted by a gated recurrent network instead of an equation.

    h_k = GRU(h_{k-1}, [x_k, m_k, delta_k]): the last observed values, what was observed at t_k, and for
    how long each channel was not. Trained and scored as an `SDESystem` is.

    Args:
        data: `IrregularSeries` with labels or targets.
        dim: Components of the state h.
        readout: The network from the state to what is predicted, or its builder (inputs, outputs);
            None: an affine map.

    >>> SeriesTarget(IrregularSeries([[0, 1], [0, 1]], [[1, 2], [3, 4]], labels=[0, 1]), dim=8)
    SeriesTarget(dim=8) of IrregularSeries(2 series, 2 times, 1 channel, 2 classes)
    """

    data: IrregularSeries | None
    dim: int
    readout: Callable[..., Any] | None
    citation: ClassVar[str] = (
        "K. Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder for Statistical "
        "Machine Translation. EMNLP 2014, arXiv:1406.1078; with masks and gaps: Z. Che et al.: "
        "Recurrent Neural Networks for Multivariate Time Series with Missing Values. Scientific Reports "
        "8, 6085 (2018)."
    )

    def __init__(
        self,
        data: IrregularSeries | None = None,
        dim: int = 16,
        readout: Callable[..., Any] | None = None,
    ) -> None:
        wrote = f"SeriesTarget(data={type(data).__name__}, dim={dim!r}, readout={readout!r})"
        if data is not None and not isinstance(data, IrregularSeries):
            raise refusal(
                wrote,
                "data is no IrregularSeries",
                "write IrregularSeries(times, values, labels=...)",
            )
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise refusal(wrote, f"{dim!r} is no number of components", "write a positive integer")
        if readout is not None and not callable(readout):
            raise refusal(wrote, "readout is no network", "give a module or a builder")
        put = vars(self).__setitem__  # the instance is closed to plain assignment
        put("data", data)
        put("dim", dim)
        put("readout", readout)

    @property
    def system(self) -> SeriesTarget:
        """Itself."""
        return self

    @property
    def normal_form(self) -> SeriesTarget:
        """Itself: there is nothing to normalise."""
        return self

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """None: no equation names them."""
        return ()

    @property
    def fields(self) -> tuple[Any, ...]:
        """None: nothing is determined by equations."""
        return ()

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """None."""
        return ()

    def remake(self, **changes: Any) -> SeriesTarget:
        """The same with other data, size or readout."""
        return SeriesTarget(
            **{"data": self.data, "dim": self.dim, "readout": self.readout} | changes
        )

    def residual(self, candidate: Any) -> Any:
        """There is none."""
        raise UnsupportedProblemError("a SeriesTarget has no equation, hence no residual")

    def diagnose(self) -> Any:
        """There is none."""
        raise UnsupportedProblemError("a SeriesTarget has no equation to diagnose")

    def latex(self) -> str:
        """The recursion."""
        return r"h_k = \mathrm{GRU}(h_{k-1}, [x_k, m_k, \delta_k])"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"problems are immutable; use .remake({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("problems are immutable; use .remake(...)")

    def __reduce__(self) -> tuple[Any, ...]:
        return SeriesTarget, (self.data, self.dim, self.readout)

    def __repr__(self) -> str:
        return f"SeriesTarget(dim={self.dim}) of {self.data!r}"
