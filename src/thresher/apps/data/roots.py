"""Where data sets and weight files are looked for, in order."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "THRESHER_DATA"


def data_roots(root: Path | None = None) -> list[Path]:
    """Folders searched: `root` alone when given; else $THRESHER_DATA, then shared/data here, above, by the checkout.

    Returns: existing and missing folders alike, in order, without repeats, so that an error can list them.

    >>> [str(place) for place in data_roots(Path("my_data"))]
    ['my_data']
    """
    if root is not None:
        return [Path(root)]
    given = os.environ.get(VARIABLE)
    found = [Path(given).expanduser()] if given else []
    found += [Path.cwd() / "shared" / "data", Path.cwd().parent / "shared" / "data"]
    checkout = Path(__file__).resolve().parents[4]
    if (checkout / "pyproject.toml").is_file():  # not so for an installed package
        found += [checkout / "shared" / "data", checkout.parent / "shared" / "data"]
    return list(dict.fromkeys(found))


def find(relative: str, root: Path | None = None) -> Path | None:
    """The first existing `root / relative` among `data_roots(root)`, or None.

    >>> find("no such data set", Path("nowhere")) is None
    True
    """
    return next((place / relative for place in data_roots(root) if (place / relative).exists()), None)
