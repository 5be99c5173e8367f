"""The processes of a matrix product that make numbers of its sums: scales, zeros and a bias."""

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import I64, IntegerAttr, IntegerType, f32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.arrays import dot_stream
from nybble.dialects.fpga.attrs import LARGEST_ACTIVATION, ElementAttr, TilingAttr
from nybble.dialects.fpga.processes import F32, TiledOp, scale_stream, total_stream
from nybble.dialects.fpga.types import StreamType, bits_for, signed
from nybble.dialects.fpga.words import Integers

WIDEST_SUM = 32
"""Bits of the widest integer that a template adds up in."""


def code_stream(tiling: TilingAttr, code: IntegerType) -> StreamType:
    """Integer scales of groups: of `high` rows in a word, in the order of dots."""
    words = tiling.passes * tiling.groups * tiling.row_blocks
    return StreamType.get(words, tiling.high.data, code)


def scaled_bits(tiling: TilingAttr, element: ElementAttr, code: IntegerType, count: int) -> int:
    """Bits of a sum over `count` groups, each times its integer scale."""
    columns = count * tiling.group.data
    most = columns * LARGEST_ACTIVATION * element.largest << code.bitwidth
    return bits_for(-most, most)


def whole_stream(tiling: TilingAttr, bits: int) -> StreamType:
    """Sums of products of groups, of `high` rows in a word, row by row, then token by token."""
    words = tiling.passes * tiling.groups * tiling.row_blocks
    return StreamType.get(words, tiling.sums, signed(bits))


@irdl_op_definition
class ScaleGroupsOp(TiledOp):
    """`sum_g dot_g * c_g` over `count` groups that share a float: exact, a bit of `c_g` in a cycle.

    The bit-serial rescaling of BitMoD (arXiv 2411.11745): a sum is shifted and added to itself, bit
    by bit of an integer scale, while the array works on the next group.
    """

    name = "fpga.scale_groups"
    dots = operand_def(StreamType)
    codes = operand_def(StreamType)
    sums = result_def(StreamType)
    element = prop_def(ElementAttr)
    code = prop_def(IntegerType)
    count = prop_def(IntegerAttr[I64])
    assembly_format = (
        "$dots `,` $codes `count` $count `code` $code `tiling` $tiling `element` $element "
        "attr-dict `:` type($dots) `,` type($codes) `->` type($sums)"
    )

    def __init__(
        self,
        dots: SSAValue,
        codes: SSAValue,
        tiling: TilingAttr,
        element: ElementAttr,
        code: IntegerType,
        count: int,
    ):
        bits = scaled_bits(tiling, element, code, count)
        super().__init__(
            operands=[dots, codes],
            result_types=[whole_stream(tiling.joined(count), bits)],
            properties={
                "tiling": tiling,
                "element": element,
                "code": code,
                "count": IntegerAttr(count, i64),
            },
        )

    @property
    def groups(self) -> int:
        """Groups that share a float."""
        return self.count.value.data

    @property
    def bits(self) -> int:
        """Bits of a sum."""
        return scaled_bits(self.tiling, self.element, self.code, self.groups)

    @property
    def is_signed(self) -> bool:
        """Whether the highest bit of a scale counts negative."""
        return self.code == signed(self.code.bitwidth)

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return dot_stream(self.tiling, self.element), code_stream(self.tiling, self.code)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (whole_stream(self.tiling.joined(self.groups), self.bits),)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return self.taken()[0].words.data * self.code.bitwidth

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        words = (self.groups - 1) * self.tiling.row_blocks + 1
        return words, words

    def tail(self) -> int:
        """See `ProcessOp`: an array gives a group's sums of all rows faster than they are taken."""
        return self.tiling.row_blocks * max(self.code.bitwidth - self.element.terms, 0)

    def verify_(self) -> None:
        if self.groups < 1 or self.tiling.groups % self.groups:
            raise VerifyException(f"{self.groups} of {self.tiling.groups} groups share a float")
        if self.bits > WIDEST_SUM:
            raise VerifyException(f"sums of {self.bits} bits; accepted: up to {WIDEST_SUM}")
        super().verify_()

    def reference(self, dots: Integers, codes: Integers) -> tuple[Integers]:
        """dots: [words, high * wide]; codes: [words, high]."""
        tiling = self.tiling
        factors = np.repeat(codes, tiling.wide.data, axis=1)
        shape = (tiling.passes, -1, self.groups, tiling.row_blocks, tiling.sums)
        return ((dots * factors).reshape(shape).sum(axis=2).reshape(-1, tiling.sums),)


@irdl_op_definition
class RescaleOp(TiledOp):
    """`y = (sum_g (dot_g * s_g + x_g * z_g)) * scale + b`, each product and sum rounded to f32.

    bits: of a dot. factors: s_g, and z_g where there are `totals`, the sums x_g of a group's
    activations. bias: b.
    """

    name = "fpga.rescale"
    dots = operand_def(StreamType)
    factors = operand_def(StreamType)
    scales = operand_def(StreamType)
    totals = opt_operand_def(StreamType)
    bias = opt_operand_def(StreamType)
    results_ = result_def(StreamType)
    bits = prop_def(IntegerAttr[I64])
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    assembly_format = (
        "$dots `,` $factors `,` $scales (`totals` $totals^ `:` type($totals))? "
        "(`bias` $bias^ `:` type($bias))? `tiling` $tiling `bits` $bits attr-dict `:` type($dots) "
        "`,` type($factors) `,` type($scales) `->` type($results_)"
    )

    def __init__(
        self,
        dots: SSAValue,
        factors: SSAValue,
        scales: SSAValue,
        totals: SSAValue | None,
        bias: SSAValue | None,
        tiling: TilingAttr,
    ):
        assert isinstance(dots.type, StreamType)
        super().__init__(
            operands=[dots, factors, scales, totals, bias],
            result_types=[result_stream(tiling)],
            properties={"tiling": tiling, "bits": IntegerAttr(dots.type.element_bits, i64)},
        )

    @property
    def has_zeros(self) -> bool:
        """Whether groups have zeros."""
        return self.totals is not None

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        tiling = self.tiling
        dots = whole_stream(tiling, self.bits.value.data)
        found = [dots, factor_stream(tiling, self.has_zeros), scale_stream(tiling)]
        found += [total_stream(tiling)] if self.has_zeros else []
        return found + ([bias_stream(tiling)] if self.bias is not None else [])

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (result_stream(self.tiling),)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return self.taken()[0].words.data

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        words = (self.tiling.groups - 1) * self.tiling.row_blocks + 1
        found = [words, words, 1]
        found += [self.tiling.groups] if self.has_zeros else []
        return found + ([1] if self.bias is not None else [])

    def reference(
        self, dots: Integers, factors: F32, scales: F32, *more: Integers | F32
    ) -> tuple[F32]:
        """dots: [words, high * wide]; factors: [words, high], or twice as many with zeros; scales:
        [passes, wide]; more: totals [passes * groups, wide], bias [words, high].
        """
        tiling = self.tiling
        whole = np.asarray(dots).reshape(tiling.passes, tiling.groups, -1, tiling.wide.data)
        rows = tiling.row_blocks * tiling.high.data
        pairs = factors.reshape(tiling.passes, tiling.groups, tiling.row_blocks, -1)
        factor = pairs[..., : tiling.high.data].reshape(*whole.shape[:2], rows, 1)
        rest = list(more)
        totals = rest.pop(0) if self.has_zeros else np.zeros(0)
        added = totals.reshape(tiling.passes, -1, 1, tiling.wide.data).astype(np.float32)
        zero = pairs[..., tiling.high.data :].reshape(*whole.shape[:2], -1, 1)
        result = np.zeros((tiling.passes, rows, tiling.wide.data), np.float32)
        with np.errstate(all="ignore"):
            for group in range(tiling.groups):
                product = whole[:, group].astype(np.float32) * factor[:, group]
                result = product if group == 0 else result + product
                if self.has_zeros:
                    result = result + added[:, group] * zero[:, group]
            result = result * scales[:, None, :]
            if rest:
                result = result + rest[0].reshape(tiling.passes, rows, 1)
        return (result.reshape(-1, tiling.sums),)


def factor_stream(tiling: TilingAttr, zeros: bool = False) -> StreamType:
    """Scales of weights, and their zeros: of `high` rows in a word, in the order of dots."""
    words = tiling.passes * tiling.groups * tiling.row_blocks
    return StreamType.get(words, tiling.high.data * (1 + zeros), f32)


def bias_stream(tiling: TilingAttr) -> StreamType:
    """What is added to results: of `high` rows in a word."""
    return StreamType.get(tiling.passes * tiling.row_blocks, tiling.high.data, f32)


def result_stream(tiling: TilingAttr) -> StreamType:
    """Results of `high` rows in a word, row by row, then token by token."""
    return StreamType.get(tiling.passes * tiling.row_blocks, tiling.sums, f32)
