"""How a parameter is prepared offline, before it is rounded to the format of its argument.

An argument's attribute `nybble.prepare` lists steps; the runtime applies them in order to the
checkpoint's numbers when the model is compiled. A step may read other vectors by their names, in
which `{layer}` stands for the number of the layer.
"""

import abc
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref.hadamard import hadamard

PREPARE = "nybble.prepare"
AXES = ("rows", "columns")
Floats = npt.NDArray[np.float64]
Lookup = Callable[[str], npt.NDArray[np.floating]]
"""From the name of a vector to its numbers."""


class StepAttr(ParametrizedAttribute, abc.ABC):
    """One step of the preparation of a matrix [rows, columns], or of a vector (all columns)."""

    @abc.abstractmethod
    def apply(self, values: Floats, lookup: Lookup) -> Floats:
        """The prepared numbers: f64 of the same shape."""


def _check_axis(axis: str) -> None:
    if axis not in AXES:
        raise VerifyException(f'unknown axis "{axis}"; accepted: {", ".join(AXES)}')


@irdl_attr_definition
class HadamardStep(StepAttr):
    """A Hadamard transform of every run of `block` values along an axis:
    `#lowbit.hadamard<columns, 64>`."""

    name = "lowbit.hadamard"
    axis: StringAttr
    block: IntAttr

    @staticmethod
    def get(axis: str, block: int) -> "HadamardStep":
        """The step along "rows" or "columns"."""
        return HadamardStep(StringAttr(axis), IntAttr(block))

    def apply(self, values: Floats, lookup: Lookup) -> Floats:
        """See `StepAttr`."""
        block = self.block.data
        if self.axis.data == "rows":
            return hadamard(np.ascontiguousarray(values.T), block).T
        return hadamard(values, block)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` axis `,` block `>`"""
        with parser.in_angle_brackets():
            axis = parser.parse_identifier()
            parser.parse_punctuation(",")
            return (StringAttr(axis), IntAttr(parser.parse_integer(allow_boolean=False)))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.axis.data}, {self.block.data}")

    def verify(self) -> None:
        _check_axis(self.axis.data)
        block = self.block.data
        if block < 2 or block & (block - 1):
            raise VerifyException(f"a Hadamard block is a power of two from 2 on, got {block}")


class FactorStep(StepAttr, abc.ABC):
    """Rows or columns times or over the elements of a vector."""

    axis: StringAttr
    vector: StringAttr

    def factors(self, lookup: Lookup) -> Floats:
        """The vector, f64 [n] or [n, 1], to broadcast against the values."""
        found = lookup(self.vector.data).astype(np.float64)
        return found[:, None] if self.axis.data == "rows" else found

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` axis `,` name `>`"""
        with parser.in_angle_brackets():
            axis = parser.parse_identifier()
            parser.parse_punctuation(",")
            return (StringAttr(axis), StringAttr(parser.parse_str_literal()))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.axis.data}, ")
            printer.print_string_literal(self.vector.data)

    def verify(self) -> None:
        _check_axis(self.axis.data)


@irdl_attr_definition
class ScaleStep(FactorStep):
    """Every row or column times its element of a vector:
    `#lowbit.scale<columns, "norm.weight">`."""

    name = "lowbit.scale"
    axis: StringAttr
    vector: StringAttr

    @staticmethod
    def get(axis: str, vector: str) -> "ScaleStep":
        """The step along "rows" or "columns"."""
        return ScaleStep(StringAttr(axis), StringAttr(vector))

    def apply(self, values: Floats, lookup: Lookup) -> Floats:
        """See `StepAttr`."""
        return values * self.factors(lookup)


@irdl_attr_definition
class UnscaleStep(FactorStep):
    """Every row or column over its element of a vector: `#lowbit.unscale<rows, "smooth.v">`."""

    name = "lowbit.unscale"
    axis: StringAttr
    vector: StringAttr

    @staticmethod
    def get(axis: str, vector: str) -> "UnscaleStep":
        """The step along "rows" or "columns"."""
        return UnscaleStep(StringAttr(axis), StringAttr(vector))

    def apply(self, values: Floats, lookup: Lookup) -> Floats:
        """See `StepAttr`."""
        return values / self.factors(lookup)


@irdl_attr_definition
class OnesStep(StepAttr):
    """Ones in place of the values, which other parameters have taken up: `#lowbit.ones`."""

    name = "lowbit.ones"

    def apply(self, values: Floats, lookup: Lookup) -> Floats:
        """See `StepAttr`."""
        return np.ones_like(values)


@irdl_attr_definition
class PlusOneStep(StepAttr):
    """One more than the values, which is what a norm with `unit_offset` multiplies by:
    `#lowbit.plus_one`."""

    name = "lowbit.plus_one"

    def apply(self, values: Floats, lookup: Lookup) -> Floats:
        """See `StepAttr`."""
        return values + 1.0


def prepared(
    steps: Sequence[StepAttr], values: npt.NDArray[np.floating], lookup: Lookup
) -> npt.NDArray[np.float32]:
    """The values after all steps, computed in f64: f32 of the same shape."""
    wide = values.astype(np.float64)
    for step in steps:
        wide = step.apply(wide, lookup)
    return np.ascontiguousarray(wide, np.float32)
