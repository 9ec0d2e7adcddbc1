"""Loops as machine code: one decorator for the kernels of `sarsop` and `pomcp`.

A kernel is a function of arrays, numbers and NamedTuples of them, written as plain loops. numba compiles it
at its first call and keeps the result beside the source (`__pycache__/*.nbi`). Without numba the same
function runs as ordinary Python: equal results but for rounding, some hundred times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    import numba
except ImportError:
    numba = None

F = TypeVar("F", bound=Callable[..., Any])

FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
"""LLVM may fuse, reorder and use reciprocals, so that sums over states become vector instructions. The price:
the same call twice in one process may differ in the last bit, as some of 80 fits of the same data did. In
order all were equal, and a POMDP of 32 states took 1.8 times as long to learn. "nnan" and "ninf" are left out
on purpose: -inf stands for "no bound yet", and who assumes that it never occurs breaks `max`."""


def compiled(f: F) -> F:
    """The function as machine code, kept on disk between runs; unchanged if numba is not installed.

    numba's cache notices changes of the function's own file only. After a change to a kernel that kernels of
    other files call, run `make clean`.
    """
    if numba is None:
        return f
    # error_model "numpy": a division by zero gives inf or NaN as in NumPy, without a check in every loop.
    fast: Any = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy")
    return fast(f)
