"""Fill in the templates of this folder."""

import json
import shlex
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def render(template: str, /, **values: Any) -> str:
    """Return a template with these values. A value that the template lacks is an error."""
    import jinja2  # heavy, and only a job or a manifest needs it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["text"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["shell"] = shlex.quote
    return environment.get_template(template).render(values)
