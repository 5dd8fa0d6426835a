"""The style of all figures: readable on a slide and on a phone."""

import sys

import matplotlib as mpl
from cycler import cycler

# Okabe & Ito (2008): eight colours that are distinct for all kinds of colour vision.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442"]


def use_style() -> None:
    """Set matplotlib's defaults; draw to files unless a notebook shows the figures."""
    if "IPython" not in sys.modules:
        mpl.use("Agg")
    mpl.rcParams.update(
        {
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "figure.constrained_layout.use": True,
            "figure.dpi": 80,
            "figure.figsize": (7.2, 4.0),
            "font.size": 11,
            "grid.alpha": 0.25,
            "image.cmap": "viridis",
            "legend.frameon": False,
            "savefig.dpi": 160,
        }
    )
