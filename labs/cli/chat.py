"""`python -m labs chat`: talk to SmolLM2, or to a model that a run saved."""

import json
import os
import signal
import sys
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from common.options import OUTPUTS, Parser
from common.terminal import line
from labs.kit.chat import saved_models
from labs.kit.chat.commands import command_in
from labs.kit.chat.plain import plain
from labs.kit.chat.saved_models import SavedModel

DESCRIPTION = "Talk to SmolLM2, or to a model that a run saved. Piped input gets one reply."
MAX_INPUT = 2**20  # bytes of piped input; the longest context here is 8,192 tokens


def main(arguments: list[str]) -> int:
    """Run `python -m labs chat`; return the exit code."""
    parser = Parser(prog="python -m labs chat", description=DESCRIPTION, allow_abbrev=False)
    parser.help_command = "invoke chat --help"
    parser.add_argument("model", nargs="?", default="", help="a folder, or a lab; default: SmolLM2")
    parser.add_argument("--list", action="store_true", help="list the models")
    parser.add_argument("--plan", action="store_true", help="find the model, print its folder")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, metavar="DIR", help="of all runs")
    parsed = parser.parse_args(arguments)
    outputs: Path = parsed.outputs
    if parsed.list:
        _print_models(outputs)
        return 0
    saved = saved_models.choose(parsed.model, outputs)
    if parsed.plan:
        print(json.dumps({"folder": str(saved.folder or "")}))
        return 0
    _chat(saved)
    return 0


def _print_models(outputs: Path) -> None:
    line("invoke chat  (SmolLM2-135M-Instruct, a chat model)")
    for model in saved_models.saved_below(outputs):
        folder = plain(str(model.folder))
        title = f": {model.title}" if model.title else ""
        line(f"invoke chat {folder}  ({model.kind}, {model.megabytes:,.1f} MB{title})")


def _chat(saved: SavedModel) -> None:
    """Talk on a terminal, or reply to what a pipe contains.

    Raises:
        Card: if this Python has no torch, or the model or the input can't be used.
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    message = "" if interactive else _piped_message()
    try:
        from labs.kit.chat.conversation import TemplateError, TooLong
        from labs.kit.chat.open_model import open_model
        from labs.kit.chat.session import Session
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("labs"):
            raise
        raise Card(
            "A chat can't run in this Python.",
            f"{error.name} is missing; the labs' packages are in the image or the environment.",
            "invoke chat",
        ) from error
    session = Session(open_model(saved))
    if interactive:
        _edit_lines()
        session.talk()
        return
    try:
        session.reply_once(message)
    except BrokenPipeError:  # the reader of the reply has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (TooLong, TemplateError) as problem:
        raise Card("The model can't reply.", str(problem), "invoke chat", WRONG_USAGE) from problem


def _piped_message() -> str:
    """Return all of standard input.

    Raises:
        Card: if it is empty, too long, not UTF-8, or a command.
    """
    content = sys.stdin.buffer.read(MAX_INPUT + 1)
    fix = 'echo "What is a token?" | invoke chat'
    if len(content) > MAX_INPUT:
        why = f"It has more than {MAX_INPUT:,} bytes."
        raise Card("The input is too long.", why, fix, WRONG_USAGE)
    try:
        message = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise Card("The input isn't UTF-8.", str(error), fix, WRONG_USAGE) from error
    if not message.strip():
        why = "Without a terminal, a chat replies to its standard input, which is empty."
        raise Card("There is nothing to reply to.", why, fix, WRONG_USAGE)
    if command := command_in(message):
        what = f"{command} is a command, and commands need a terminal."
        why = "Piped input is one message to the model. A space before the / makes it a message."
        raise Card(what, why, "invoke chat", WRONG_USAGE)
    return message


def _edit_lines() -> None:
    """Let `input` edit lines, with a history that ends with the chat."""
    import readline

    readline.set_auto_history(True)
    readline.clear_history()
