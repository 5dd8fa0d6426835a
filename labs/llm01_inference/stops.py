"""Watch what `until_stop` of LLM01+ shows and when, and functions with a mistake beside it."""

from collections.abc import Callable, Iterable, Iterator

UntilStop = Callable[[Iterable[str], list[str]], Iterator[str]]


def until_stop_in_a_piece(pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """Yield text up to a stop string that lies within a piece: the mistake to avoid."""
    for piece in pieces:
        places = [piece.index(stop) for stop in stops if stop in piece]
        yield piece[: min(places, default=len(piece))]
        if places:
            return


def until_the_end(until_stop: UntilStop, pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """Yield the right text, but all of it at the end: later than necessary."""
    yield from until_stop(["".join(pieces)], stops)


def begins_a_stop(part: str, stops: list[str]) -> bool:
    """Return whether one of the stop strings begins with this part of a text."""
    return any(stop.startswith(part) for stop in stops)


def shown_and_held(show: UntilStop, pieces: list[str], stops: list[str]) -> tuple[str, list[str]]:
    """Return the text shown, and what was held back each time a next piece was asked for."""
    text = ""
    held = []

    def come() -> Iterator[str]:
        given = ""
        for piece in pieces:
            held.append(given[len(text) :])
            given += piece
            yield piece

    for part in show(come(), stops):
        text += part
    return text, held
