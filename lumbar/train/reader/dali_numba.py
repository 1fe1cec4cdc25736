"""Compiled functions as DALI calls them: by their address, compiled once and cached on disk.

DALI's own ``numba_function`` compiles a wrapper for every pipeline, which takes seconds. Numba
caches the wrappers of this file on disk, so the next pipeline or process starts at once.

Compiled functions are marked `no_type_check`, which keeps the tests' shape checks away from them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, no_type_check
from zlib import crc32

import numpy as np
import torch
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.core.types import voidptr
from numba.extending import intrinsic
from nvidia.dali.plugin.numba import NumbaFunction

from lumbar.train.kernels import render
from lumbar.train.kernels.render import kept_on_disk

_RUN = types.void(
    types.uint64, types.uint64, types.uint64, types.int32,
    types.uint64, types.uint64, types.uint64, types.int32,
)  # fmt: skip
"""Outputs, their shapes, their ndims, their number; the same of the inputs."""
_SHAPE = types.void(
    types.uint64, types.uint64, types.int32, types.uint64, types.uint64, types.int32, types.int32
)
"""Shapes of the outputs, their ndims, their number; the same of the inputs; samples."""

renderer: Any = None
pixel: Any = None
stored: Any = None
crop_height: Any = None
crop_width: Any = None
gather_slices = render.gather_slices
"""Globals of the templates below; each compiled function has its own."""


class CompiledFunction(NumbaFunction):
    """DALI's operator for functions that are compiled already, as ``cfunc`` objects."""

    def _get_run_fn_cpu(self, run_fn: Any, *_: Any) -> int:
        return int(run_fn.address)

    def _get_setup_fn_cpu(self, setup_fn: Any) -> int:
        return int(setup_fn.address)


def renderer_of(dtype: torch.dtype, *, light: bool) -> tuple[Any, np.dtype[Any]]:
    """Return the function that renders views of a type, and the NumPy type that it writes.

    ``light`` is for augmentation without low resolution, blur, bias field and gamma.
    """
    renderers = render.LIGHT_RENDERERS if light else render.RENDERERS
    bits = np.float32 if dtype == torch.float32 else np.int16
    return renderers[str(dtype).removeprefix("torch.")], np.dtype(bits)


def as_rendered(image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a rendered image as a type: int16 holds the bits of 16-bit floats."""
    return image.view(dtype) if image.dtype == torch.int16 else image.to(dtype)


@cache
def compiled_renderer(dtype: torch.dtype, stored_dtype: str, *, light: bool) -> Any:
    """Return the function for DALI that renders views of a type from volumes of a stored type.

    Its inputs are volume, slices, matrix, numbers and key.
    """
    function, bits = renderer_of(dtype, light=light)
    return _compiled(
        _render,
        f"{function.py_func.__name__}_of_{stored_dtype}",
        _RUN,
        renderer=function,
        pixel=bits.type,
        stored=np.dtype(stored_dtype).type,
    )


@cache
def compiled_gather(stored_dtype: str) -> Any:
    """Return the function for DALI that gathers slices; its inputs are volume and slices."""
    stored_type = np.dtype(stored_dtype).type
    return _compiled(_gather, f"gather_{stored_dtype}", _RUN, stored=stored_type)


@cache
def rendered_shape(height: int, width: int) -> Any:
    """Return the function that tells DALI a view's shape: (number of slices, height, width)."""
    name = f"rendered_shape_{height}_{width}"
    return _compiled(_shape_of_view, name, _SHAPE, crop_height=height, crop_width=width)


@cache
def gathered_shape() -> Any:
    """Return the function that tells DALI the shape of gathered slices."""
    return _compiled(_shape_of_gathered, "gathered_shape", _SHAPE)


@intrinsic
@no_type_check
def _pointer(typing: Any, address: Any) -> tuple[Any, Any]:
    """Return an address as a pointer."""

    @no_type_check
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(voidptr))

    return voidptr(address), build


@njit
@no_type_check
def _whole(address: Any, n: Any) -> Any:
    """Return the ``n`` integers, or addresses, at an address."""
    return carray(_pointer(address), n, np.int64)


@no_type_check
def _render(
    outs: Any, out_shapes: Any, _a: Any, _b: Any, ins: Any, shapes: Any, _c: Any, _d: Any
) -> None:
    """Call ``renderer`` with DALI's arguments: addresses of data and of shapes."""
    data, shape = _whole(ins, 5), _whole(shapes, 5)
    d, h, w = _whole(_whole(out_shapes, 1)[0], 3)
    depth, height, width = _whole(shape[0], 3)
    renderer(
        carray(_pointer(_whole(outs, 1)[0]), (d, h, w), pixel),
        carray(_pointer(data[0]), (depth, height, width), stored),
        carray(_pointer(data[1]), (d,), np.int32),
        carray(_pointer(data[2]), (2, 3), np.float32),
        carray(_pointer(data[3]), (_whole(shape[3], 1)[0],), np.float32),
        carray(_pointer(data[4]), (2,), np.uint32),
    )


@no_type_check
def _gather(
    outs: Any, out_shapes: Any, _a: Any, _b: Any, ins: Any, shapes: Any, _c: Any, _d: Any
) -> None:
    """Call `render.gather_slices` with DALI's arguments."""
    data, shape = _whole(ins, 2), _whole(shapes, 2)
    d, h, w, _ = _whole(_whole(out_shapes, 1)[0], 4)
    depth, height, width = _whole(shape[0], 3)
    gather_slices(
        carray(_pointer(_whole(outs, 1)[0]), (d, h, w, 1), stored),
        carray(_pointer(data[0]), (depth, height, width), stored),
        carray(_pointer(data[1]), (d,), np.int32),
    )


@no_type_check
def _shape_of_view(outs: Any, _a: Any, _b: Any, ins: Any, _c: Any, _d: Any, samples: Any) -> None:
    """Write the shape of every view: its number of slices, and the crop's size."""
    for n in range(samples):
        out = _whole(_whole(outs, samples)[n], 3)
        out[0] = _whole(_whole(ins, 2 * samples)[samples + n], 1)[0]
        out[1] = crop_height
        out[2] = crop_width


@no_type_check
def _shape_of_gathered(
    outs: Any, _a: Any, _b: Any, ins: Any, _c: Any, _d: Any, samples: Any
) -> None:
    """Write the shape of every view: its number of slices, and the volume's size."""
    for n in range(samples):
        out = _whole(_whole(outs, samples)[n], 4)
        volume = _whole(_whole(ins, samples)[n], 3)
        out[0] = _whole(_whole(ins, 2 * samples)[samples + n], 1)[0]
        out[1] = volume[1]
        out[2] = volume[2]
        out[3] = 1


def _compiled(template: Any, name: str, signature: Any, **names: Any) -> Any:
    """Return a template compiled for a signature, with globals of its own.

    Numba cannot cache on disk what was compiled with functions in a closure, and its cache checks
    this file only for changes, so the name holds a checksum of all files.
    """
    own = FunctionType(template.__code__, {**globals(), **names}, name)
    sources = crc32(Path(__file__).read_bytes(), render.sources_checksum())
    own.__qualname__ = f"{name}_{sources:08x}"
    with kept_on_disk():
        return cfunc(signature, cache=True)(own)
