"""Power over time as pieces, and fewer of them than there were."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Pieces:
    """Power of a channel, of several, or of the total, piece by piece: arrays (pieces,).

    ``start_s`` and ``end_s`` bound a piece in the time that was metered, ``awake_s`` is how long
    the machine was awake in it. ``low_w`` and ``high_w`` are the lowest and the highest mean
    between two samples. Joules and powers are NaN where nobody looked.
    """

    name: str
    boundary: str
    estimated: bool
    start_s: np.ndarray
    end_s: np.ndarray
    awake_s: np.ndarray
    joules: np.ndarray
    low_w: np.ndarray
    high_w: np.ndarray

    @property
    def mean_w(self) -> np.ndarray:
        """Mean power of every piece."""
        return np.divide(
            self.joules, self.awake_s, where=self.awake_s > 0, out=np.full_like(self.joules, np.nan)
        )


def bin_pieces(pieces: Pieces, bins: int) -> Pieces:
    """Join pieces into bins of equal time; few pieces stay as they are."""
    if len(pieces.joules) <= 2 * bins:
        return pieces
    edges = np.linspace(pieces.start_s[0], pieces.end_s[-1], bins + 1)
    middles = (pieces.start_s + pieces.end_s) / 2
    places = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, bins - 1)
    seen = ~np.isnan(pieces.joules)
    places = places[seen]
    count = np.bincount(places, minlength=bins)

    def add_up(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(places, weights=values[seen], minlength=bins)
        return np.where(count > 0, sums, np.nan)

    low_w, high_w = np.full(bins, np.inf), np.full(bins, -np.inf)
    np.minimum.at(low_w, places, pieces.low_w[seen])
    np.maximum.at(high_w, places, pieces.high_w[seen])
    return replace(
        pieces,
        start_s=edges[:-1],
        end_s=edges[1:],
        awake_s=np.nan_to_num(add_up(pieces.awake_s)),
        joules=add_up(pieces.joules),
        low_w=np.where(count > 0, low_w, np.nan),
        high_w=np.where(count > 0, high_w, np.nan),
    )
