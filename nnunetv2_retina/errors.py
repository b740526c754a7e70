"""The one exception type for what a user can put right, and how its texts list things and quote other errors."""

from collections.abc import Iterable


class RetinaError(ValueError):
    """Wrong input or a wrong setting. The text says what was got, what was expected and what to do."""


def one_line(error: BaseException, longest: int = 200) -> str:
    """Return the last line of what a library says of an error, printable; the error's type if it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "".join(letter if letter.isprintable() else "?" for letter in lines[-1][:longest])


def shorten(values: Iterable[object], limit: int = 5) -> str:
    """Return the first few values, then how many more there are."""
    items = [str(value) for value in values]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
