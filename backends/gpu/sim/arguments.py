"""The arguments of a launch, put where a kernel finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from nybble.backends.gpu.image import Access, Boxes, KernelImage, Parameter
from nybble.backends.gpu.sim.memory import GlobalLayout
from nybble.backends.gpu.sim.ptx import Entry, Variable
from nybble.backends.gpu.sim.symbols import Symbols
from nybble.backends.gpu.sim.tensormap import BYTES, Swizzle, TensorMap
from nybble.backends.gpu.sim.types import Array, scalar
from nybble.dialects.errors import NybbleError

Argument: TypeAlias = "Array | int | float | TensorMap"
Arguments: TypeAlias = Mapping[str, Argument] | Sequence[Argument]


@dataclass
class Placed:
    """Arguments in memory. block: the bytes of the parameters.

    arrays: buffer number -> the caller's array. maps: offset in the parameters -> tensor map, and
    the address of its memory.
    """

    block: Array
    arrays: dict[int, Array] = field(default_factory=dict[int, Array])
    maps: dict[int, tuple[TensorMap, int]] = field(default_factory=dict[int, tuple[TensorMap, int]])


def place_arguments(
    entry: Entry,
    symbols: Symbols,
    layout: GlobalLayout,
    arguments: Arguments,
    image: KernelImage | None = None,
) -> Placed:
    """Give each parameter its argument; raises NybbleError if they do not fit.

    By name, arguments are those of the image's parameters, or of the PTX's if there is no image;
    else they come in order. One array may be the argument of several parameters.
    """
    names = [one.name for one in (image.parameters if image else entry.parameters)]
    if len(names) != len(entry.parameters):
        raise NybbleError(
            f"kernel '{entry.name}' has {len(entry.parameters)} parameters, not {len(names)}"
        )
    values = _in_order(entry.name, names, arguments)
    placed = Placed(np.zeros(max(symbols.parameters, 8), np.uint8))
    for index, (name, variable, value) in enumerate(
        zip(names, entry.parameters, values, strict=True)
    ):
        parameter = image.parameters[index] if image else None
        access = parameter.access if parameter else Access.UPDATE
        if parameter and parameter.boxes and isinstance(value, np.ndarray):
            value = _map(parameter, parameter.boxes, value)
        _place(placed, symbols, layout, name, variable, value, access)
    return placed


def _map(parameter: Parameter, boxes: Boxes, array: Array) -> TensorMap:
    """What a launch makes of a buffer that the kernel takes as a tensor map."""
    element = parameter.bytes // prod(boxes.shape)
    if array.nbytes < parameter.bytes:
        raise NybbleError(
            f"the array of '{parameter.name}' has {array.nbytes} bytes",
            accepted=f"at least {parameter.bytes}",
        )
    return TensorMap(array, element, boxes.shape, boxes.box, swizzle=Swizzle(boxes.swizzle))


def _in_order(kernel: str, names: list[str], arguments: Arguments) -> list[Argument]:
    if isinstance(arguments, Mapping):
        unknown = [name for name in arguments if name not in names]
        missing = [name for name in names if name not in arguments]
        if unknown or missing:
            what = f"no parameter '{unknown[0]}'" if unknown else f"no argument '{missing[0]}'"
            raise NybbleError(f"kernel '{kernel}' has {what}", accepted=", ".join(names))
        return [arguments[name] for name in names]
    if len(arguments) != len(names):
        raise NybbleError(
            f"kernel '{kernel}' was given {len(arguments)} arguments",
            accepted=f"{len(names)}: {', '.join(names)}",
        )
    return list(arguments)


def _place(
    placed: Placed,
    symbols: Symbols,
    layout: GlobalLayout,
    name: str,
    variable: Variable,
    value: Argument,
    access: Access,
) -> None:
    offset = symbols.addresses[variable.name][1]
    size = variable.bytes or 0
    if isinstance(value, TensorMap):
        if size != BYTES:
            raise NybbleError(f"parameter '{name}' of {size} bytes is no tensor map")
        placed.maps[offset] = (value, _buffer(placed, layout, name, value.array, access))
        return
    if isinstance(value, np.ndarray) and value.ndim:
        if size != 8:
            raise NybbleError(f"parameter '{name}' of {size} bytes is no pointer")
        raw = np.uint64(_buffer(placed, layout, name, value, access)).tobytes()
    else:
        raw = _number(name, variable, value)
    placed.block[offset : offset + size] = np.frombuffer(raw, np.uint8)


def _buffer(placed: Placed, layout: GlobalLayout, name: str, array: Array, access: Access) -> int:
    """The address of an array, the same one for the same array."""
    if not array.flags.c_contiguous:
        raise NybbleError(f"the array of '{name}' is not contiguous")
    for number, known in placed.arrays.items():
        if known is array or (
            known.ctypes.data == array.ctypes.data and known.nbytes == array.nbytes
        ):
            one = layout.buffers[number]
            one.read_only = one.read_only and access == Access.READ
            one.output = one.output and access == Access.WRITE
            return layout.address(number)
    placed.arrays[len(layout.buffers)] = array
    return layout.add(
        name, array.nbytes, read_only=access == Access.READ, output=access == Access.WRITE
    )


def _number(name: str, variable: Variable, value: Any) -> bytes:
    type_ = scalar(variable.type)
    size = variable.bytes or 0
    if isinstance(value, (bytes, bytearray)) and len(value) == size:
        return bytes(value)
    if size != type_.bytes:
        raise NybbleError(f"parameter '{name}' takes {size} bytes, not the number {value}")
    if isinstance(value, np.generic) and value.dtype.itemsize == size:
        return value.tobytes()
    if type_.kind == "f" or (type_.kind == "b" and isinstance(value, (float, np.floating))):
        floats: dict[int, type[Any]] = {2: np.float16, 4: np.float32, 8: np.float64}
        if size not in floats:
            raise NybbleError(f"parameter '{name}' of {size} bytes cannot be {value}")
        return floats[size](value).tobytes()
    if isinstance(value, (float, np.floating)):
        raise NybbleError(f"parameter '{name}' is a whole number and cannot be {value}")
    whole = int(value)
    if not -(1 << (8 * size - 1)) <= whole < 1 << (8 * size):
        raise NybbleError(f"parameter '{name}' of {size} bytes cannot be {value}")
    return (whole & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
