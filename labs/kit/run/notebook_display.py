"""Show figures and views below a cell, if the lab runs in a notebook."""

import sys
from typing import TYPE_CHECKING

from labs.kit.records import View
from labs.kit.report import views

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


def show_figure(figure: "Drawing") -> None:
    """Show the figure in a notebook."""
    if _in_notebook():
        from IPython.display import display

        display(figure)


def show_view(view: View) -> None:
    """Show the view in a notebook."""
    if _in_notebook():
        from IPython.display import display

        display({"text/html": views.frame(view), "text/plain": view.caption}, raw=True)


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return get_ipython() is not None
