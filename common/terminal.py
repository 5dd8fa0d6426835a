"""Print to the terminal; on a pipe, print plain lines."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.text import Text

WIDTH = 100  # columns on a pipe


class Screen(Console):
    """A console that leaves it to its caller what to do if the reader of the output has left."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the error again; rich would exit with 1."""
        raise BrokenPipeError


def screen() -> Console:
    """Return a console for standard output; on a pipe, plain and of a fixed width."""
    console = Screen(highlight=False)
    return console if console.is_terminal else Screen(highlight=False, width=WIDTH)


@contextmanager
def leaving_reader() -> Generator[None]:
    """Let the reader of the output, such as `head`, leave in this block: that is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def line(text: str, style: str = "") -> None:
    """Print a line, wrapped between words on a terminal and never on a pipe."""
    console = screen()
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def labelled(label: str, text: str) -> None:
    """Print text beside a label of up to nine letters."""
    console = screen()
    if not console.is_terminal:
        text = text.replace("\n", f"\n{' ' * 11}")
        console.print(f" {label:9} {text}", markup=False, soft_wrap=True)
        return
    body = Text(text).wrap(console, max(20, console.width - 12))
    for number, part in enumerate(body):
        console.print(Text.assemble((f" {label if not number else '':9} ", "bold"), part))
