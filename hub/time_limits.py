"""When the hub stops a seat, and what the learner who finds it stopped reads about that."""

SECONDS_BETWEEN_REPORTS = 60


def seconds_between_reports(idle: int) -> int:
    """Return how often seats report whether they are used, and how often the hub looks.

    Args:
        idle: The seconds after which an unused seat is stopped; 0 is never. A seat that is in use
            has to report several times in it.
    """
    return min(SECONDS_BETWEEN_REPORTS, idle // 4) if idle else SECONDS_BETWEEN_REPORTS


def describe(idle: int, longest: int) -> str:
    """Return what the hub's pages say about stopped seats; "" if it never stops any.

    Args:
        idle: The seconds after which an unused seat is stopped; 0 is never.
        longest: The seconds after which any seat is stopped; 0 is never.
    """
    reasons: list[str] = []
    if idle:
        reasons.append(f"when nobody has used it for {in_words(idle)}")
    if longest:
        reasons.append(f"{in_words(longest)} after its start")
    if not reasons:
        return ""
    return (
        f"A seat is stopped {', and '.join(reasons)}. Your files stay, variables are lost. "
        "You can start the seat again."
    )


def in_words(seconds: int) -> str:
    """Return a time limit in hours or minutes."""
    number, unit = (seconds // 3600, "hour") if seconds % 3600 == 0 else (seconds // 60, "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"
