"""The size of a voxel."""

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing


def test_of_two_or_three_numbers() -> None:
    assert Spacing.of((40, 8, 4)) == Spacing(40, 8, 4)
    assert Spacing.of([8, 4], NANOMETRES) == Spacing(None, 8, 4, NANOMETRES)
    assert (tuple(Spacing.of((8, 4))), len(Spacing.of((8, 4)))) == ((8.0, 4.0), 2)


def test_a_spacing_stays_what_it_is() -> None:
    spacing = Spacing(40, 8, 4, NANOMETRES)
    assert Spacing.of(spacing) is spacing


@pytest.mark.parametrize("steps", [(1,), (1, 1, 1, 1)])
def test_other_numbers_of_axes_are_refused(steps: tuple[float, ...]) -> None:
    with pytest.raises(RetinaError, match=r"expected two \(y, x\) or three \(z, y, x\)"):
        Spacing.of(steps)


@pytest.mark.parametrize("step", [0, -1, float("nan"), float("inf")])
def test_sizes_are_above_0(step: float) -> None:
    with pytest.raises(RetinaError, match="expected numbers above 0"):
        Spacing(None, step, 1)


def test_unknown_unit() -> None:
    with pytest.raises(RetinaError, match="unit of the spacing 'um'; expected 'nm', or None"):
        Spacing(1, 1, 1, "um")
