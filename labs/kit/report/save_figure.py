"""Save a figure as SVG: text stays text, and what would be heavy becomes pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

MANY_MARKS = 1_000  # points, cells or bars of one artist, at about 100 bytes each
MANY_POINTS = 20_000  # of a line without markers, at about 15 bytes each
HEAVY = 400_000  # bytes: a page has up to ten figures, and 3 MB


def save(figure: "Figure", path: Path) -> None:
    """Write `figure` to `path`; the same figure gives the same bytes."""
    for artist in figure.findobj():
        if _heavy(artist):
            artist.set_rasterized(True)
    figure.savefig(path, metadata={"Date": None})
    if path.stat().st_size > HEAVY:  # many artists that are light one by one
        for axes in figure.axes:
            for artist in (*axes.lines, *axes.collections, *axes.patches, *axes.images):
                artist.set_rasterized(True)
        figure.savefig(path, metadata={"Date": None})


def _heavy(artist: "Artist") -> bool:
    """Return whether an artist has more elements than an SVG should."""
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D

    if isinstance(artist, Collection):
        return max(len(artist.get_paths()), np.size(artist.get_offsets(), 0)) > MANY_MARKS
    if isinstance(artist, Line2D):
        points = np.size(artist.get_xdata(orig=False))
        has_marker = artist.get_marker() not in ("None", "", " ", None)
        return points > (MANY_MARKS if has_marker else MANY_POINTS)
    return False
