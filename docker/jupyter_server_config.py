"""JupyterLab for the labs: lessons and sheets are notebooks, lessons are read-only.

Jupyter reads this file from etc/jupyter of the image's or the environment's Python.
"""

import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from labs.cli.heartbeat import end_with_launcher

from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from jupytext.async_contentsmanager import build_async_jupytext_contents_manager_class
from tornado.web import Finish, HTTPError

READ_ONLY = "Lessons are read-only. Save your own copy: invoke learn writes your sheet into work/."
COPY = "*Lessons are read-only: `invoke learn {lab}` makes your own copy.*"
HEADING = re.compile(r"# (\S+) · ")
EXERCISE = "@lab.exercise("
FIRST_CELL = "# %%\n"
SHEET = "# Your sheet of "
# JupyterLab would add what the kernel reports, and then show the notebook as changed.
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
    "language_info": IPythonKernel.language_info,
}

end_with_launcher()  # in a container
# transformers' first import says so in red. Its bars are text here, without widgets.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821


def is_lesson(path: str) -> bool:
    """Return whether a path is in labs/."""
    return "labs" in PurePosixPath(path.strip("/")).parts[:1]


def refuse_lessons(*paths: str) -> None:
    """Refuse to change a file in labs/.

    Raises:
        HTTPError: If one of the paths is there.
    """
    if any(map(is_lesson, paths)):
        raise HTTPError(403, READ_ONLY)


def add_notice(cells: list[dict[str, Any]]) -> None:
    """Say below the heading of a lesson with exercises how to get a copy that can be saved."""
    heading = HEADING.match(cells[0]["source"]) if cells else None
    if heading and any(EXERCISE in cell["source"] for cell in cells):
        cells[0]["source"] += "\n\n" + COPY.format(lab=heading[1])


class LabFiles(build_async_jupytext_contents_manager_class(AsyncLargeFileManager)):
    """The files of the labs; a container also mounts labs/ read-only."""

    async def get(self, path: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """Return a file; JupyterLab shows that a lesson is read-only, and asks for no kernel."""
        model = await super().get(path, *arguments, **keywords)
        is_notebook = model["type"] == "notebook" and bool(model["content"])
        if is_notebook:
            model["content"]["metadata"].update(METADATA)
        if not is_lesson(path):
            return model
        if is_notebook:
            add_notice(model["content"]["cells"])
        return {**model, "writable": False}

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Save a file outside of labs/."""
        refuse_lessons(path)
        return await super().save(model, path)

    async def rename_file(self, old_path: str, new_path: str) -> None:
        """Rename a file outside of labs/."""
        refuse_lessons(old_path, new_path)
        await super().rename_file(old_path, new_path)

    async def delete_file(self, path: str) -> None:
        """Delete a file outside of labs/."""
        refuse_lessons(path)
        await super().delete_file(path)

    async def _save_file(self, os_path: str, content: str, *arguments: Any) -> Any:
        """Write a file; the lines above the first cell of a sheet stay outside of a cell."""
        if content.startswith(FIRST_CELL + SHEET):
            content = content.removeprefix(FIRST_CELL)
        return await super()._save_file(os_path, content, *arguments)


class LabKernels(AsyncMappingKernelManager):
    """Kernels that run in the clone's folder, so that results go to its outputs/."""

    def cwd_for_path(self, path: str, **keywords: Any) -> str:
        """Return the folder that a notebook's kernel starts in."""
        del path, keywords
        return str(self.root_dir)


select_subprotocol = KernelWebsocketHandler.select_subprotocol


def select_while_connected(handler: Any, subprotocols: list[str]) -> str | None:
    """Choose a socket's protocol, unless the browser has left; Jupyter logs a traceback then."""
    if handler.connection is None:
        raise Finish
    return select_subprotocol(handler, subprotocols)


KernelWebsocketHandler.select_subprotocol = select_while_connected
c.ServerApp.contents_manager_class = LabFiles
c.ServerApp.kernel_manager_class = LabKernels
# Save a sheet without metadata, so that it stays what `invoke check` reads. A cell's title is the
# text after `# %%`.
c.LabFiles.notebook_metadata_filter = "-all"
c.LabFiles.cell_metadata_filter = "title,-all"

# Only the host's own browser, by the token: this refuses other names for the address.
c.ServerApp.allow_remote_access = False
# The launcher chooses the user; root in a rootless engine's container is an ordinary user outside.
c.ServerApp.allow_root = True
c.ServerApp.answer_yes = True  # Ctrl-C ends it without a question
c.ServerApp.open_browser = False
c.ServerApp.port_retries = 0
c.KernelManager.transport = "ipc"  # other users can't send code to a kernel
c.Application.log_level = "ERROR"  # the link, without a launcher, is critical
# JupyterLab would ask whether to build itself again. Each page runs Node.js for that, for 0.25 s.
c.ServerApp.tornado_settings = {"page_config_data": {"buildAvailable": False, "buildCheck": False}}
# No requests to the network: no list of extensions, no news, no search for updates.
c.LabApp.extension_manager = "readonly"
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"

if "JUPYTERHUB_USER" in os.environ:
    sys.path.insert(0, str(Path(__file__).parent))
    from seat_config import configure

    configure(c, LabFiles)
