"""Units of length that image files state, in nm."""

from __future__ import annotations

_NANOMETRES = {
    1e-3: ("pm", "picometer", "picometre"),
    1e-1: ("a", "å", "\u212b", "\\u00c5", "angstrom", "angstroms", "ångström"),
    1.0: ("nm", "nanometer", "nanometre", "nanometers", "nanometres"),
    1e3: ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre", "micrometers", "micrometres"),
    1e6: ("mm", "millimeter", "millimetre", "millimeters", "millimetres"),
    1e7: ("cm", "centimeter", "centimetre"),
    2.54e7: ("in", "inch", "inches", '"'),
    1e9: ("m", "meter", "metre"),
}
_BY_NAME = {name: factor for factor, names in _NANOMETRES.items() for name in names}


def nanometres(unit: object) -> float | None:
    """Return how many nm a unit is, by its name or sign; None for one that is not known."""
    return _BY_NAME.get(str(unit).strip().strip('"').lower() or "-")
