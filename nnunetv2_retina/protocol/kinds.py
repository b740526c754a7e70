"""What a value in the ``retina`` block must be."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeGuard


def is_int(value: object) -> TypeGuard[int]:
    """Tell whether it is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def are_label_values(value: object) -> bool:
    """Tell whether they are label values, at least one and each once."""
    if not isinstance(value, tuple) or not value or not all(is_int(entry) and entry >= 0 for entry in value):
        return False
    return len(set(value)) == len(value)


def is_pair(value: object) -> TypeGuard[tuple[float, float]]:
    """Tell whether they are two finite numbers."""
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))


def is_text_table(value: object) -> bool:
    """Tell whether it maps to texts."""
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


def is_fold(fold: object) -> bool:
    """Tell whether it has ``train`` and ``val`` cases."""
    return isinstance(fold, Mapping) and set(fold) == {"train", "val"} and all(map(is_case_list, fold.values()))


def is_case_list(part: object) -> bool:
    """Tell whether it is a list of names, not empty."""
    return isinstance(part, list) and bool(part) and all(isinstance(case, str) for case in part)


def fold_fault(fold: Mapping[str, Sequence[str]]) -> str | None:
    """Say what is wrong with a fold of ``train`` and ``val`` cases, beginning with a verb; None if nothing is.

    Both parts may be the same: that is fold ``all``, whose training cases are validated on as well.
    """
    train, val = fold["train"], fold["val"]
    for part, cases in (("train", train), ("val", val)):
        if not cases:
            return f"has no case in {part}; expected at least one"
        if twice := [case for case, count in Counter(cases).items() if count > 1]:
            return f"has {twice[0]} twice in {part}; expected it once"
    both = sorted({*train} & {*val})
    if both and {*train} != {*val}:
        return (
            f"has {both[0]} in train and in val, where its score would be too good; expected it in one of them, or all "
            "cases in both"
        )
    return None
