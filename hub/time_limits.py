"""How often the hub looks for seats to stop, and a time limit in words."""

SECONDS_BETWEEN_REPORTS = 60


def seconds_between_reports(idle: int) -> int:
    """Return how often seats report whether they are used, and how often the hub looks.

    Args:
        idle: The seconds after which an unused seat is stopped; 0 is never. A seat that is in use
            has to report several times in it.
    """
    return min(SECONDS_BETWEEN_REPORTS, idle // 4) if idle else SECONDS_BETWEEN_REPORTS


def in_words(seconds: int) -> str:
    """Return a time limit in hours or minutes."""
    number, unit = (seconds // 3600, "hour") if seconds % 3600 == 0 else (seconds // 60, "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"
