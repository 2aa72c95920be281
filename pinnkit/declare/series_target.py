"""A target of series without an equation: labels or numbers that a recurrent network learns to read off.

In    series with labels or targets.
Out   `SeriesTarget`, a problem for `NeuralSDE`.
Next  `solution.series_recurrent` holds the network; it is what equations are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

from pinnkit.declare.data_target import DataTarget
from pinnkit.declare.printing import refusal
from pinnkit.declare.series import IrregularSeries

__all__ = ["SeriesTarget"]


@final
class SeriesTarget(DataTarget):
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
    def declared(self) -> dict[str, Any]:
        """Series, size and readout."""
        return {"data": self.data, "dim": self.dim, "readout": self.readout}

    def latex(self) -> str:
        """The recursion."""
        return r"h_k = \mathrm{GRU}(h_{k-1}, [x_k, m_k, \delta_k])"

    def __repr__(self) -> str:
        return f"SeriesTarget(dim={self.dim}) of {self.data!r}"
