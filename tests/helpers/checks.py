"""Small helpers that tests of every room share."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

T = TypeVar("T")
TarMode = Literal["w:", "w:gz", "w:bz2", "w:xz"]
"""How ``tarfile`` writes."""


def known(value: T | None) -> T:
    """Return a value that may be None where it must not be."""
    assert value is not None
    return value


def noting(notes: list[Any], note: Callable[..., Any], function: Callable[..., T]) -> Callable[..., T]:
    """Return a function that does what ``function`` does, and appends what ``note`` makes of its arguments."""

    def call(*arguments: Any, **options: Any) -> T:
        notes.append(note(*arguments, **options))
        return function(*arguments, **options)

    return call
