"""Vector code that the compiler does not find by itself: eight slices at once, and a fast copy.

All slices of a sample share one matrix. With eight slices interleaved, the eight stored values of
one source pixel are neighbours in memory, so that bilinear interpolation loads them at once. LLVM's
portable vectors become whatever the machine has: AVX-512, AVX2 or less.
"""

from __future__ import annotations

from typing import Any, no_type_check

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic

SLICES = 8
"""Slices that are interpolated together, and pixels per block."""
BLOCK_BYTES = 16
"""Bytes of each slice that are interleaved at once."""

_FLOATS = ir.VectorType(ir.FloatType(), SLICES)
_INT64 = ir.IntType(64)
_INT32 = ir.IntType(32)
_FUSED = ("contract",)


@intrinsic
@no_type_check
def interleave_block(
    typing: Any, box: Any, place: Any, volume: Any, starts: Any, offset: Any
) -> tuple[Any, Any]:
    """Copy 16 bytes of each of eight slices into the flat ``box`` at element ``place``.

    They are read from ``volume`` at elements ``starts[k] + offset``. The first pixel of all eight
    is written first, then the second.
    """

    @no_type_check
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source, begin = (_data(context, builder, signature, args, k) for k in (0, 2, 3))
        _, place, _, _, offset = args
        element = context.get_value_type(signature.args[2].dtype)
        lanes = BLOCK_BYTES * 8 // element.width
        vector = ir.VectorType(element, lanes)
        runs = []
        for k in range(SLICES):
            start = builder.load(builder.gep(begin, [_INT64(k)]))
            runs.append([_load(builder, source, builder.add(start, offset), vector)])
        while len(runs) > 1:
            half = len(runs) // 2
            runs = [_zipped(builder, runs[k], runs[k + half]) for k in range(half)]
        for k, row in enumerate(runs[0]):
            _store(builder, row, to, builder.add(place, _INT64(k * lanes)))
        return context.get_dummy_value()

    wide = types.int64
    return types.void(box, wide, volume, starts, wide), build


@intrinsic
@no_type_check
def interpolate_block(
    typing: Any,
    rows: Any,
    place: Any,
    distance: Any,
    box: Any,
    below: Any,
    corners: Any,
    weights: Any,
    first: Any,
    offset: Any,
) -> tuple[Any, Any]:
    """Interpolate eight pixels of eight slices: to ``rows`` at ``place + slice * distance``.

    For pixel ``first + p`` of the block, ``corners`` has the element of ``box`` of its upper left
    neighbour, and ``weights`` four weights of its neighbours; ``offset`` is added. The lower
    neighbours lie ``below`` elements on.
    """

    @no_type_check
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source, corner, weight = (
            _data(context, builder, signature, args, k) for k in (0, 3, 5, 6)
        )
        _, place, distance, _, below, _, _, first, offset = args
        element = context.get_value_type(signature.args[3].dtype)
        stored = ir.VectorType(element, SLICES)
        convert = builder.sitofp if signature.args[3].dtype.signed else builder.uitofp
        shift = _splat(builder, offset)
        pixels = []
        for p in range(SLICES):
            pixel = builder.add(first, _INT64(p))
            start = builder.sext(builder.load(builder.gep(corner, [pixel])), _INT64)
            total = shift
            for row in range(2):
                for column in range(2):
                    one = builder.mul(pixel, _INT64(4))
                    one = builder.add(one, _INT64(2 * row + column))
                    share = _splat(builder, builder.load(builder.gep(weight, [one])))
                    where = builder.add(start, below) if row else start
                    where = builder.add(where, _INT64(column * SLICES))
                    value = convert(_load(builder, source, where, stored), _FLOATS)
                    product = builder.fmul(value, share, flags=_FUSED)
                    total = builder.fadd(product, total, flags=_FUSED)
            pixels.append([total])
        # Interleaving eight vectors of eight also transposes them.
        while len(pixels) > 1:
            half = len(pixels) // 2
            pixels = [_zipped(builder, pixels[k], pixels[k + half]) for k in range(half)]
        for k, row in enumerate(pixels[0]):
            _store(builder, row, to, builder.add(place, builder.mul(distance, _INT64(k))))
        return context.get_dummy_value()

    wide = types.int64
    taken = (rows, wide, wide, box, wide, corners, weights, wide, types.float32)
    return types.void(*taken), build


@intrinsic
@no_type_check
def copy_elements(
    typing: Any, to: Any, place: Any, source: Any, start: Any, count: Any
) -> tuple[Any, Any]:
    """Copy ``count`` elements of ``source`` from ``start`` on to ``to`` at ``place``.

    Both are contiguous arrays of one type with flat indices. One call of ``memcpy`` is several
    times as fast as a compiled loop.
    """

    @no_type_check
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        begin, end = (_data(context, builder, signature, args, k) for k in (0, 2))
        _, place, _, start, count = args
        size = context.get_abi_sizeof(context.get_value_type(signature.args[0].dtype))
        raw_memcpy(builder, builder.gep(begin, [place]), builder.gep(end, [start]), count, size)
        return context.get_dummy_value()

    wide = types.int64
    return types.void(to, wide, source, wide, wide), build


@no_type_check
def _zipped(builder: Any, left: Any, right: Any) -> list[Any]:
    """Interleave two lists of vectors into one whose elements alternate."""
    run = []
    for a, b in zip(left, right, strict=True):
        lanes = a.type.count
        for begin in (0, lanes // 2):
            places = [begin + k // 2 + (k % 2) * lanes for k in range(lanes)]
            mask = ir.Constant(ir.VectorType(_INT32, lanes), places)
            run.append(builder.shuffle_vector(a, b, mask))
    return run


@no_type_check
def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    """Return the address of the first element of the array argument ``k``."""
    kind = signature.args[k]
    return context.make_array(kind)(context, builder, args[k]).data


@no_type_check
def _load(builder: Any, base: Any, place: Any, vector: Any) -> Any:
    address = builder.bitcast(builder.gep(base, [place]), vector.as_pointer())
    loaded = builder.load(address)
    loaded.align = 1
    return loaded


@no_type_check
def _store(builder: Any, vector: Any, base: Any, place: Any) -> None:
    address = builder.bitcast(builder.gep(base, [place]), vector.type.as_pointer())
    builder.store(vector, address).align = 1


@no_type_check
def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, _INT32(0))
    mask = ir.Constant(ir.VectorType(_INT32, SLICES), [0] * SLICES)
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), mask)
