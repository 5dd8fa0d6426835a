"""Interactive views: data of a run, a script that shows them, and a table without the script.

A view needs no network and no framework. Its script, views/<kind>.js, gets an empty element and the
data, and computes in the browser. The table is in the page, too; the script folds it.
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from labs.kit.records import View
from labs.kit.report.markdown import render_inline

import numpy as np
from markupsafe import Markup, escape

FOLDER = Path(__file__).with_name("views")
HELPERS = ("common", "start")  # what every view needs
DIGITS = 5  # significant digits of the numbers in a page


def kinds() -> list[str]:
    """Return the kinds of views, which are the names of their scripts."""
    return sorted(path.stem for path in FOLDER.glob("*.js") if path.stem not in HELPERS)


def pack_array(array: Any) -> dict[str, Any]:
    """Return an array of small integers as JSON data, which `unpack` in common.js reads.

    Args:
        array: anything that NumPy takes as an array of uint8 or uint16.

    Raises:
        TypeError: for another type of numbers.
    """
    numbers = np.asarray(array)
    if str(numbers.dtype) not in ("uint8", "uint16"):
        raise TypeError(f"views pack uint8 and uint16, not {numbers.dtype}")
    little_endian = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
    return {
        "type": str(numbers.dtype),
        "shape": list(numbers.shape),
        "base64": base64.b64encode(little_endian).decode(),
    }


def write(data: Mapping[str, Any], path: Path) -> None:
    """Write the data of a view as compact JSON: floats rounded, null for NaN and infinity."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(_rounded(data), ensure_ascii=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {key: _rounded(member) for key, member in items}
    if isinstance(value, list | tuple):
        return [_rounded(member) for member in cast(Sequence[Any], value)]
    return value


def figure(view: View) -> Markup:
    """Return a view as HTML: the table that stands in for the script, the caption, the data."""
    data = view.path.read_text(encoding="utf-8").replace("<", "\\u003c")  # no "</script>" in it
    return Markup(
        '<figure class="view" id="view-{name}" data-view="{kind}" role="group" '
        'aria-labelledby="caption-{name}">\n'
        '<div class="view-table" tabindex="0" role="region" aria-label="Table: {name}">'
        "{table}</div>\n"
        '<figcaption id="caption-{name}">{caption}</figcaption>\n'
        '<script type="application/json">{data}</script>\n</figure>'
    ).format(
        name=view.name,
        kind=view.kind,
        table=_table(view.columns, view.rows),
        caption=render_inline(view.caption),
        data=Markup(data),
    )


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Markup:
    head = Markup("").join(
        Markup('<th scope="col">{}</th>').format(name) if name else Markup("<td></td>")
        for name in columns
    )
    body = Markup("\n").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(c) for c in row))
        for row in rows
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table>").format(
        head, body
    )


def style() -> Markup:
    """Return the style sheet of all views; its colours are those of the page.

    What one kind alone needs is in views/<kind>.css.
    """
    sheets = [FOLDER / "views.css", *(FOLDER / f"{kind}.css" for kind in kinds())]
    return Markup("\n".join(one.read_text(encoding="utf-8") for one in sheets if one.is_file()))


def script(needed: Iterable[str]) -> Markup:
    """Return the scripts that these kinds of views need; their place is behind the views."""
    common, start = HELPERS
    names = [common, *sorted(set(needed)), start]
    files = [(FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in names]
    return Markup("\n".join(files))


def document(view: View) -> str:
    """Return a complete page with this view alone, for a notebook's output."""
    colours = FOLDER.with_name("style.css").read_text(encoding="utf-8")
    notebook = (FOLDER / "notebook.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(view.name)}</title><link rel="icon" href="data:,">\n'
        f"<style>\n{colours}\n{style()}\n{notebook}</style></head><body><main>\n{figure(view)}\n</main>\n"
        f"<script>\n{script([view.kind])}</script></body></html>"
    )


def frame(view: View) -> str:
    """Return an <iframe> with this view.

    In a frame, an output is a separate document: styles don't leak, and JupyterLab doesn't act on
    the arrow keys. The script sets the height and follows JupyterLab's scheme.
    """
    source = escape(document(view))
    title = escape(view.caption)
    return (
        f'<iframe title="{title}" srcdoc="{source}" '
        'style="width: 100%; height: 480px; border: 0"></iframe>'
    )
