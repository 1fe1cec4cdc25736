"""Exponentials and logarithms of float32 that the compiler vectorises.

Those of the mathematics library take one number at a time and would take most of a sample's time.
The polynomials are those of Cephes (Moshier, 1989, `exp2f.c` and `logf.c`); the relative error
stays below 1e-6.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import intrinsic

_EXP2 = tuple(
    np.float32(c)
    for c in (
        1.535336188319500e-4,
        1.339887440266574e-3,
        9.618437357674640e-3,
        5.550332471162809e-2,
        2.402264791363012e-1,
        6.931472028550421e-1,
        1.0,
    )
)
_LOG = tuple(
    np.float32(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
        -0.5,
        1.0,
    )
)
_LOG2_E = np.float32(np.log2(np.e))
_HALF_ROOT = np.int32(0x3F3504F3)
"""The bits of sqrt(1/2): mantissas lie between there and sqrt(2)."""
_SMALLEST, _GREATEST = np.float32(-126), np.float32(127)


@intrinsic
@no_type_check
def bits_of(typing: Any, number: Any) -> tuple[Any, Any]:
    """Return the bits of a float32 as int32."""

    @no_type_check
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), build


@intrinsic
@no_type_check
def float_of(typing: Any, bits: Any) -> tuple[Any, Any]:
    """Return the float32 with the bits of an int32."""

    @no_type_check
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), build


@njit(inline="always")
@no_type_check
def exp2(x: Any) -> Any:
    """Return 2 to the power of a float32, from 2**-126 to 2**127."""
    bounded = min(max(x, _SMALLEST), _GREATEST)
    whole = np.rint(bounded)
    part = bounded - whole
    y = _EXP2[0]
    y = y * part + _EXP2[1]
    y = y * part + _EXP2[2]
    y = y * part + _EXP2[3]
    y = y * part + _EXP2[4]
    y = y * part + _EXP2[5]
    y = y * part + _EXP2[6]
    return y * float_of(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))


@njit(inline="always")
@no_type_check
def log2(x: Any) -> Any:
    """Return the binary logarithm of a normal float32 above 0."""
    bits = bits_of(x)
    exponent = np.int32(np.int32(bits - _HALF_ROOT) >> np.int32(23))
    part = float_of(np.int32(bits - np.int32(exponent << np.int32(23)))) - np.float32(1)
    y = _LOG[0]
    y = y * part + _LOG[1]
    y = y * part + _LOG[2]
    y = y * part + _LOG[3]
    y = y * part + _LOG[4]
    y = y * part + _LOG[5]
    y = y * part + _LOG[6]
    y = y * part + _LOG[7]
    y = y * part + _LOG[8]
    y = y * part + _LOG[9]
    y = y * part + _LOG[10]
    return y * part * _LOG2_E + np.float32(exponent)
