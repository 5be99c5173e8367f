"""One quantized layer of a checkpoint: the tensors it is stored as, and the weight they decode to.

Tensors are checked by their headers when the checkpoint is opened and stay mapped; the numbers in
them are read, and checked, when the weight is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.assembly import Stored, Tree, assemble
from nybble.dialects.lowbit.formats.numeric import encode_floats
from nybble.dialects.lowbit.formats.scale import TensorScale
from nybble.dialects.lowbit.formats.trees import expand, times_unit
from nybble.dialects.lowbit.formats.weight import TreeParts
from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.quantized.numbers import (
    U8,
    Floats,
    Integers,
    codes_of,
    floats,
    integers,
)
from nybble.frontend.checkpoint.safetensors_file import StoredTensor

FLOATS = ("f32", "f16", "bf16")
"""Types of scales, and of tensors that are not quantized."""


@dataclass(frozen=True, eq=False)
class Content:
    """The numbers of a weight [rows, cols] in the terms of its format.

    codes: u8 [rows, cols]. scale: f32 [rows, groups] as the format stores it. zeros: u8 integer
    zeros, minima: f32 stored minima, both [rows, groups]; None where the format has none. total:
    f32 of one number, the scale of the matrix that multiplies the others; None likewise.
    """

    codes: U8
    scale: Floats
    zeros: U8 | None = None
    minima: Floats | None = None
    total: Floats | None = None

    def stored_in(self, form: formats.Format) -> Stored:
        """The numbers as the format takes them."""
        minima = None if self.minima is None else (self.minima, None)
        return Stored(self.codes, self._scale(form), minima, self.zeros)

    def _scale(self, form: formats.Format) -> Tree:
        unit = form.element.unit
        if self.total is None or not isinstance(form.scale, TensorScale):
            return self.scale * np.float32(unit), None
        codes = encode_floats(form.scale.dtype, self.scale)
        parts = times_unit(TreeParts(self.total.reshape(1, 1), codes), unit)
        return expand(form.scale, parts), parts


@dataclass(frozen=True)
class Decoded:
    """The weight of a layer: the name of its format, and what reads its bytes in that format."""

    format: str
    read: Callable[[], U8]


@dataclass(frozen=True)
class Layer:
    """A linear layer whose weight [rows, cols] is stored as several `tensors` in `path`.

    name: what the layer is called in the model; tensors are named without it.
    """

    path: Path
    name: str
    shape: tuple[int, int]
    tensors: Mapping[str, StoredTensor]

    def fail(self, part: str, message: str) -> CheckpointError:
        """The error for the tensor `part` of this layer."""
        return CheckpointError(self.path, f"tensor {quoted(f'{self.name}.{part}')} {message}")

    def only(self, *parts: str) -> None:
        """Raise CheckpointError for a tensor other than `parts`."""
        for part in sorted(self.tensors.keys() - set(parts)):
            raise self.fail(part, "has no meaning beside the configuration of its layer")

    def take(self, part: str, dtypes: tuple[str, ...], *shapes: tuple[int, ...]) -> "LayerTensor":
        """The tensor `part`, which has one of the types and of the shapes."""
        tensor = self.tensors.get(part)
        if tensor is None:
            raise self.fail(part, "is missing")
        if tensor.dtype not in dtypes:
            raise self.fail(part, f"has dtype {tensor.dtype}; accepted: {', '.join(dtypes)}")
        if tensor.shape not in shapes:
            accepted = " or ".join(str(list(shape)) for shape in shapes)
            raise self.fail(part, f"has shape {list(tensor.shape)}; needed: {accepted}")
        return LayerTensor(self, part, tensor)

    def groups(self, size: int | None) -> int:
        """How many scales a row has; size: weights per scale, None for the whole row."""
        cols = self.shape[1]
        if size is not None and cols % size:
            message = f"layer {quoted(self.name)} has {cols} columns, no multiple of groups of"
            raise CheckpointError(self.path, f"{message} {size}")
        return 1 if size is None else cols // size

    def decoded(self, spelling: str, content: Callable[[], Content]) -> Decoded:
        """The weight in the format that is spelled so, read by `content`.

        Reading raises CheckpointError for scales or minima that are not finite, and for codes that
        stand for no finite number.
        """
        form = formats.get(spelling)

        def read() -> U8:
            found = content()
            self._require_finite("scales", found.scale)
            for what, values in (("minima", found.minima), ("a scale", found.total)):
                if values is not None:
                    self._require_finite(what, values)
            table = form.element.plain_table
            if table is not None:
                self._require_finite("weights", table[found.codes])
            return form.pack(assemble(form, found.stored_in(form)))

        return Decoded(form.spec, read)

    def _require_finite(self, what: str, values: Floats) -> None:
        if not np.isfinite(values).all():
            place = [int(index) for index in np.argwhere(~np.isfinite(values))[0]]
            found = values[tuple(place)]
            message = (
                f"layer {quoted(self.name)} has {what} that are not finite: {found} at {place}"
            )
            raise CheckpointError(self.path, message)


@dataclass(frozen=True)
class LayerTensor:
    """A tensor of a layer whose type and shape are as they should be."""

    layer: Layer
    part: str
    stored: StoredTensor

    @property
    def dtype(self) -> str:
        """Name of the type of its numbers."""
        return self.stored.dtype

    def floats(self) -> Floats:
        """Its numbers as f32, in its shape."""
        return floats(self.stored)

    def integers(self) -> Integers:
        """Its integers in their own type, in its shape."""
        return integers(self.stored)

    def fail(self, message: str) -> CheckpointError:
        """The error for this tensor."""
        return self.layer.fail(self.part, message)

    def exponents(self) -> Floats:
        """Its bytes as powers of two (e8m0), f32 in its shape; NaN for 255."""
        return floats(replace(self.stored, dtype="e8m0"))

    def bytes(self) -> U8:
        """Its 8-bit numbers as they are stored, u8 in its shape."""
        return codes_of(self.stored)

    def codes(self, bits: int) -> U8:
        """Signed integers of so many bits as codes: u8 in its shape, the most negative one 0."""
        shifted = self.integers().astype(np.int16) + 2 ** (bits - 1)
        low, high = int(shifted.min()), int(shifted.max())
        if low < 0 or high >> bits:
            found = f"from {low - 2 ** (bits - 1)} to {high - 2 ** (bits - 1)}"
            raise self.fail(f"has numbers {found}; accepted: those of {bits} bits")
        return shifted.astype(np.uint8)

    def group_places(self, groups: int) -> Integers:
        """Of an index of the group of each column: that of each group of consecutive columns.

        Returns i32 [groups]. Raises CheckpointError for groups that do not exist, and for an
        activation order that scatters the columns of a group.
        """
        found = self.integers()
        if found.min() < 0 or found.max() >= groups:
            low, high = int(found.min()), int(found.max())
            raise self.fail(f"has groups from {low} to {high}; there are {groups}")
        blocks = found.reshape(groups, -1)
        if (blocks != blocks[:, :1]).any():
            raise self.fail(
                "scatters the columns of a group (act-order, desc_act); accepted: groups of"
                " consecutive columns (desc_act false, or static groups)"
            )
        return blocks[:, 0]
