"""The style of all figures: readable on a slide and on a phone, on a light and on a dark page."""

import sys

import matplotlib as mpl
from cycler import cycler

# Okabe & Ito (2008): eight colours that are distinct for all kinds of colour vision.
# Ink replaces their black.
INK = "#1c2026"  # text, axes and lines without a colour: the page gives them its own ink
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", INK, "#F0E442"]


def use_style() -> None:
    """Set matplotlib's defaults; draw to files unless a notebook shows the figures."""
    if "IPython" not in sys.modules:
        mpl.use("Agg")
    mpl.rcParams.update(
        {
            "axes.edgecolor": INK,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "figure.constrained_layout.use": True,
            "figure.dpi": 80,
            "figure.figsize": (7.2, 4.0),
            "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],  # of the same widths
            "font.size": 11,
            "grid.alpha": 0.15,
            "grid.color": INK,
            "image.cmap": "viridis",
            "legend.frameon": False,
            "savefig.dpi": 160,  # of the parts of a figure that are pixels
            "savefig.facecolor": "none",
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "llm-labs",  # the same ids in every run
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
