"""A chat: read a line, obey a command or let the model reply."""

import sys
from collections.abc import Callable
from typing import Any

from labs.kit.chat.commands import HELP
from labs.kit.chat.conversation import Conversation, TemplateError, TooLong
from labs.kit.chat.open_model import ChatModel
from labs.kit.chat.plain import plain
from labs.kit.chat.reply import StopButton, generate
from labs.kit.chat.sampling import SETTINGS, Sampling

from accelerate.utils import set_seed
from rich.console import Console
from rich.text import Text

PROMPT = "> "


class Session:
    """A conversation with a model, on a terminal or from a pipe.

    Args:
        model: the model.
    """

    def __init__(self, model: ChatModel) -> None:
        """Start with the default settings and no turn."""
        self.model = model
        self.conversation = Conversation(model)
        self.sampling = Sampling(temperature=0) if model.greedy else Sampling()
        self._ended = False
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)
        self._commands: dict[str, Callable[[str], None]] = {
            "system": self._set_system,
            "reset": self._reset,
            "settings": self._show_settings,
            "help": self._show_help,
            "quit": self._quit,
        }
        set_seed(self.sampling.seed)

    def talk(self) -> None:
        """Reply line by line until the end of the input.

        Raises:
            KeyboardInterrupt: on Ctrl-C at the prompt, or on a second one during a reply.
        """
        self._introduce()
        while not self._ended:
            try:
                line = input(PROMPT)
            except EOFError:  # Ctrl-D
                print()
                return
            except KeyboardInterrupt:
                print()
                raise
            except UnicodeDecodeError:
                self._note("That line isn't UTF-8. Nothing was sent.")
                continue
            if line.startswith("/"):
                self._obey(line)
            elif line.strip() or not self.model.is_chat_model:
                self._reply(line)

    def reply_once(self, message: str) -> None:
        """Reply to one message on standard output.

        Raises:
            TooLong: if it doesn't fit into the model's context.
            TemplateError: if the chat template refuses it.
        """
        self._write_reply(message, StopButton())

    def _introduce(self) -> None:
        model = self.model
        self._note(
            f"{model.name} · {model.parameters / 1e6:,.1f} M parameters · {model.precision} · "
            f"{model.device}"
        )
        if not model.is_chat_model:
            self._note(
                "This is a base model: it was not trained to reply. It continues your text. Enter "
                "alone continues further, and another text starts anew."
            )
        if model.greedy:
            usual = Sampling().temperature
            self._note(
                "It was saved for exact answers: it always takes the most probable token. "
                f"/temperature {usual} makes it sample, as other models do."
            )
        self._note("/help lists the commands. Ctrl-C stops a reply, Ctrl-D ends the chat.")

    def _reply(self, message: str) -> None:
        button = StopButton()
        try:
            with button.on_ctrl_c():
                self._write_reply(message, button)
        except (TooLong, TemplateError) as problem:
            self._note(f"{problem} Nothing was sent.")
        if button.pressed:
            self._note("(stopped)")

    def _write_reply(self, message: str, button: StopButton) -> None:
        prompt = self.conversation.prompt(message, self.sampling.max_tokens)
        if prompt.dropped:
            context = f"the model's context of {self.model.context:,} tokens"
            self._note(f"To fit into {context}, {prompt.dropped} were left out.")
        reply = generate(self.model, prompt, self.sampling, _write, button)
        _write("\n")
        self.conversation.record(message, reply.text)
        if reply.tokens < prompt.max_tokens or button.pressed:
            return
        if prompt.max_tokens < self.sampling.max_tokens:
            self._note(f"(the context of {self.model.context:,} tokens is full)")
        else:
            self._note(f"({reply.tokens:,} tokens; /max-tokens allows longer replies)")

    def _obey(self, line: str) -> None:
        command, _, value = line[1:].partition(" ")
        value = value.strip()
        if command in SETTINGS:
            self._set(command, value)
        elif command in self._commands:
            self._commands[command](value)
        else:
            self._note(f"There is no command /{plain(command)}. /help lists them.")

    def _set(self, command: str, value: str) -> None:
        try:
            self.sampling = self.sampling.changed(command, value)
        except ValueError as problem:
            self._note(f"{problem}.")
            return
        if command == "seed":
            set_seed(self.sampling.seed)
        self._note(f"/{command} {self.sampling.shown()[f'/{command}']}")

    def _set_system(self, value: str) -> None:
        if not self.model.is_chat_model:
            self._note("A base model has no system prompt.")
            return
        self.conversation.system = value
        note = "The system prompt is set." if value else "The model's own system prompt is used."
        self._note(note)

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        set_seed(self.sampling.seed)
        self._note("This is a new conversation.")

    def _show_settings(self, _: str) -> None:
        for command, value in self.sampling.shown().items():
            self._note(f"{command:13} {value:8} {SETTINGS[command[1:]].help}")
        if self.conversation.system:
            self._note(f"{'/system':13} {plain(self.conversation.system)}")

    def _show_help(self, _: str) -> None:
        for command, setting in SETTINGS.items():
            self._note(f"{'/' + command + ' N':16} {setting.help}")
        for command, text in HELP.items():
            self._note(f"{command:16} {text}")
        self._note("A message that starts with / needs a space before it.")

    def _quit(self, _: str) -> None:
        self._ended = True

    def _note(self, text: str) -> None:
        """Print a line that the model didn't write: dim, and apart from the reply."""
        self._notes.print(Text(text, style="dim"))


def _write(text: str) -> Any:
    sys.stdout.write(text)
    sys.stdout.flush()
