"""When the hub stops a seat, in words for the learner who finds it stopped."""


def describe(idle: int, longest: int) -> str:
    """Return what the hub's pages say about stopped seats; "" if it never stops any.

    Args:
        idle: The seconds after which an unused seat is stopped; 0 is never.
        longest: The seconds after which any seat is stopped; 0 is never.
    """
    reasons: list[str] = []
    if idle:
        reasons.append(f"when nobody has used it for {_in_words(idle)}")
    if longest:
        reasons.append(f"{_in_words(longest)} after its start")
    if not reasons:
        return ""
    return (
        f"A seat is stopped {', and '.join(reasons)}. Your files stay, variables are lost. "
        "You can start the seat again."
    )


def _in_words(seconds: int) -> str:
    number, unit = (seconds // 3600, "hour") if seconds % 3600 == 0 else (seconds // 60, "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"
