"""Loads the kernel library through ctypes, or says why there is none."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

from thresher.deploy.engine.build import LIBRARY
from thresher.errors import InputError

VERSION = 2
ISAS = ("portable", "avx2", "avx512")
VARIABLE = "THRESHER_ENGINE_ISA"
_P, _I, _L, _D = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_double
_SIGNATURES = {
    "thr_version": (_I, ()),
    "thr_best_isa": (_I, ()),
    "thr_has_isa": (_I, (_I,)),
    "thr_new": (_P, (_I, _I, _I)),
    "thr_free": (None, (_P,)),
    "thr_tensor_size": (_L, (_I,) * 7),
    "thr_plane": (_L, (_I,) * 7),
    "thr_add_tensor": (_I, (_P, _I, _I, _I, _I, _I, _L)),
    "thr_set_constant": (None, (_P, _I, _P)),
    "thr_set_arena": (None, (_P, _L)),
    "thr_add_op": (_I, (_P, _I, _P, _I, _P, _L)),
    "thr_pack": (_I, (_P, _I, _P, _I, _I, _I, _I, _I, _I)),
    "thr_unpack": (_L, (_P, _I, _P)),
    "thr_takes_masks": (_I, (_P, _I)),
    "thr_value_bytes": (_I, (_P, _I)),
    "thr_set_groups": (None, (_P, _P, _I)),
    "thr_run": (_I, (_P, _P, _P, _P, _P, _I, _I, _I)),
    "thr_time": (_D, (_P, _I, _I, _I, _I, _I)),
}


@dataclass(frozen=True)
class Native:
    """The loaded library, or None with the reason."""

    handle: ctypes.CDLL | None
    reason: str


@cache
def native() -> Native:
    """The library beside this file; loaded once a process.

    >>> isinstance(native().reason, str)
    True
    """
    if not LIBRARY.exists():
        return Native(None, "the kernel library was not built: no C++ compiler when thresher was installed")
    try:
        handle = ctypes.CDLL(str(LIBRARY))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, AttributeError) as error:
        return Native(None, f"the kernel library does not load: {error}")
    if handle.thr_version() != VERSION:
        return Native(None, f"the kernel library is of version {handle.thr_version()}, not {VERSION}: install again")
    return Native(handle, "")


def pick_isa(name: str | None = None) -> int:
    """Number of the instruction set: `name`, else $THRESHER_ENGINE_ISA, else the best that the processor has.

    Errors: InputError for a name that is unknown, or that this processor does not have.
    """
    handle = native().handle
    assert handle is not None
    name = name or os.environ.get(VARIABLE) or ISAS[handle.thr_best_isa()]
    if name not in ISAS or not handle.thr_has_isa(ISAS.index(name)):
        has = [isa for number, isa in enumerate(ISAS) if handle.thr_has_isa(number)]
        raise InputError(f"instruction set {name!r}", f"one of {', '.join(has)}", "choose one that this machine has")
    return ISAS.index(name)
