"""What the author of a shared model says about it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2_retina.errors import RetinaError


@dataclass(frozen=True, kw_only=True)
class About:
    """What no file of the model says.

    Raises:
        RetinaError: without a licence or an author.
    """

    licence: str
    """Identifier of SPDX, such as CC-BY-4.0; of the weights."""
    authors: tuple[str, ...]
    name: str | None = None
    """None: made of the names of the data set and the trainer."""
    text: str | None = None
    """What the model is for, in a sentence or more."""

    def __post_init__(self) -> None:
        if not self.licence.strip() or " " in self.licence.strip():
            raise RetinaError(f"licence is {self.licence!r}; expected an identifier of SPDX, such as CC-BY-4.0")
        if not self.authors or not all(author.strip() for author in self.authors):
            raise RetinaError("no author is named; expected at least one name")
