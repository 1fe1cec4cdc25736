"""Compiled functions as DALI calls them: by their address, compiled once and kept on disk.

DALI's own ``numba_function`` compiles a wrapper around a function at every construction of a
pipeline, which takes seconds. Here numba keeps the machine code of the wrappers beside this file,
so that the next pipeline, and the next process, starts at once.

What is compiled is marked `no_type_check`, so that no wrapper that checks shapes comes between.
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

RENDERERS: dict[torch.dtype, Any] = {
    torch.float32: render.render_float32,
    torch.bfloat16: render.render_bfloat16,
    torch.float16: render.render_float16,
}
"""The compiled function of each type of sample; those of 16 bits write the bits as int16."""

LIGHT_RENDERERS: dict[torch.dtype, Any] = {
    torch.float32: render.render_light_float32,
    torch.bfloat16: render.render_light_bfloat16,
    torch.float16: render.render_light_float16,
}
"""The same for samples without low resolution, blur, bias field and gamma: compiled in half the
time, the same bytes."""

_RUN = types.void(
    types.uint64, types.uint64, types.uint64, types.int32,
    types.uint64, types.uint64, types.uint64, types.int32,
)  # fmt: skip
"""Outputs, their shapes, their numbers of axes, how many; the same of the inputs."""
_SHAPE = types.void(
    types.uint64, types.uint64, types.int32, types.uint64, types.uint64, types.int32, types.int32
)
"""Shapes of the outputs, their numbers of axes, how many; the same of the inputs; samples."""

draw: Any = None
drawn: Any = None
stored: Any = None
drawn_height: Any = None
drawn_width: Any = None
"""What the templates below call and read: each compiled function has its own."""


class CompiledFunction(NumbaFunction):
    """DALI's operator for functions that are compiled already: both are ``cfunc`` objects."""

    def _get_run_fn_cpu(self, run_fn: Any, *_: Any) -> int:
        return int(run_fn.address)

    def _get_setup_fn_cpu(self, setup_fn: Any) -> int:
        return int(setup_fn.address)


def renderer_of(dtype: torch.dtype, *, light: bool) -> tuple[Any, np.dtype[Any]]:
    """Return the function that draws samples of a type, and the numpy type that it writes."""
    bits = np.float32 if dtype == torch.float32 else np.int16
    return (LIGHT_RENDERERS if light else RENDERERS)[dtype], np.dtype(bits)


def as_rendered(image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what was drawn as samples of a type: its bits where they are int16."""
    return image.view(dtype) if image.dtype == torch.int16 else image.to(dtype)


@cache
def compiled_renderer(dtype: torch.dtype, stored_dtype: str, *, light: bool) -> Any:
    """Return the compiled function that draws samples of a type from volumes of a stored type.

    Its inputs are volume, slices, matrix, numbers and key.
    """
    function, bits = renderer_of(dtype, light=light)
    return _compiled(
        _draw,
        f"{function.py_func.__name__}_of_{stored_dtype}",
        _RUN,
        draw=function,
        drawn=bits.type,
        stored=np.dtype(stored_dtype).type,
    )


@cache
def compiled_gather(stored_dtype: str) -> Any:
    """Return the compiled function that gathers slices; its inputs are volume and slices."""
    stored_type = np.dtype(stored_dtype).type
    return _compiled(_gather, f"gather_{stored_dtype}", _RUN, stored=stored_type)


@cache
def rendered_shape(height: int, width: int) -> Any:
    """Return the function that tells DALI a sample's shape: (number of slices, height, width)."""
    return _compiled(
        _shape_of_drawn,
        f"drawn_shape_{height}_{width}",
        _SHAPE,
        drawn_height=height,
        drawn_width=width,
    )


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
    """Return ``n`` whole numbers, or addresses, that lie at an address."""
    return carray(_pointer(address), n, np.int64)


@no_type_check
def _draw(
    outs: Any, out_shapes: Any, _a: Any, _b: Any, ins: Any, shapes: Any, _c: Any, _d: Any
) -> None:
    """Call ``draw`` on what DALI hands over: addresses of data and of shapes."""
    data, shape = _whole(ins, 5), _whole(shapes, 5)
    d, h, w = _whole(_whole(out_shapes, 1)[0], 3)
    depth, height, width = _whole(shape[0], 3)
    draw(
        carray(_pointer(_whole(outs, 1)[0]), (d, h, w), drawn),
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
    """Call `render.gather_slices` on what DALI hands over."""
    data, shape = _whole(ins, 2), _whole(shapes, 2)
    d, h, w, _ = _whole(_whole(out_shapes, 1)[0], 4)
    depth, height, width = _whole(shape[0], 3)
    gather_slices(
        carray(_pointer(_whole(outs, 1)[0]), (d, h, w, 1), stored),
        carray(_pointer(data[0]), (depth, height, width), stored),
        carray(_pointer(data[1]), (d,), np.int32),
    )


gather_slices = render.gather_slices


@no_type_check
def _shape_of_drawn(outs: Any, _a: Any, _b: Any, ins: Any, _c: Any, _d: Any, samples: Any) -> None:
    """Write the shape of every sample: as many slices as are named, and the crop's size."""
    for n in range(samples):
        out = _whole(_whole(outs, samples)[n], 3)
        out[0] = _whole(_whole(ins, 2 * samples)[samples + n], 1)[0]
        out[1] = drawn_height
        out[2] = drawn_width


@no_type_check
def _shape_of_gathered(
    outs: Any, _a: Any, _b: Any, ins: Any, _c: Any, _d: Any, samples: Any
) -> None:
    """Write the shape of every sample: as many slices as are named, and the volume's size."""
    for n in range(samples):
        out = _whole(_whole(outs, samples)[n], 4)
        volume = _whole(_whole(ins, samples)[n], 3)
        out[0] = _whole(_whole(ins, 2 * samples)[samples + n], 1)[0]
        out[1] = volume[1]
        out[2] = volume[2]
        out[3] = 1


def _compiled(template: Any, name: str, signature: Any, **names: Any) -> Any:
    """Return a template compiled for a signature, with globals of its own.

    Numba does not keep on disk what was compiled with functions in a closure, and looks at this
    file alone to see whether what it kept is of today: so the name tells all that it depends on.
    """
    own = FunctionType(template.__code__, {**globals(), **names}, name)
    sources = crc32(Path(__file__).read_bytes(), render.sources_checksum())
    own.__qualname__ = f"{name}_{sources:08x}"
    with kept_on_disk():
        return cfunc(signature, cache=True)(own)
