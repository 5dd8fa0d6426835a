"""The commands of a chat on a terminal. No torch."""

from labs.kit.chat.sampling import SETTINGS

HELP = {
    "/system TEXT": "set the system prompt; without a text: return to the model's own",
    "/reset": "start a new conversation; the system prompt stays",
    "/settings": "show the settings",
    "/help": "show this list",
    "/quit": "end, like Ctrl-D; Ctrl-C stops a reply",
}


def command_in(text: str) -> str:
    """Return the command that a text starts with, such as "/seed"; empty without a command."""
    first = text.split(maxsplit=1)[0] if text[:1] == "/" else ""
    known = {f"/{name}" for name in SETTINGS} | {usage.split()[0] for usage in HELP}
    return first if first in known else ""
