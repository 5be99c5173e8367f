"""A second opinion of a row: a circuit that CIRCT makes of a loop.

Nothing of it is shared with the elements: a loop over codes and activations (`cf`, `arith` and
`memref`) becomes an elastic circuit (`lower-cf-to-handshake`; Josipović et al. 2018), and that,
SystemVerilog. It takes one weight after the other, so that it says nothing of quality. A weight is
`step * code + low`, which holds for every integer element, so one circuit serves all.

    cf.br ^head(%zero, %none)            %0:3 = fork %n ...
    ^head(%i, %sum): ...           ->    %1 = mux %2 [%0#0, %3] ...
    cf.cond_br %more, ^body, ^end        %4, %5 = cond_br %6, %1 ...
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.circt import LOOP, exported
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.simulate import output_of, program

LOOP_DRIVER = Path(__file__).with_name("loop_driver.cpp")
LOOP_TOP = "product"
MOST = 256
"""Products of a row that its memories have room for."""
LOOP_TEXT = f"""
func.func @{LOOP_TOP}(%w: memref<{MOST}xi8>, %a: memref<{MOST}xi8>, %n: index, %step: i32,
    %low: i32) -> i32 {{
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %none = arith.constant 0 : i32
  cf.br ^head(%zero, %none : index, i32)
^head(%i: index, %sum: i32):
  %more = arith.cmpi slt, %i, %n : index
  cf.cond_br %more, ^body, ^end
^body:
  %code = memref.load %w[%i] : memref<{MOST}xi8>
  %activation = memref.load %a[%i] : memref<{MOST}xi8>
  %wide_code = arith.extui %code : i8 to i32
  %wide_activation = arith.extsi %activation : i8 to i32
  %steps = arith.muli %wide_code, %step : i32
  %weight = arith.addi %steps, %low : i32
  %part = arith.muli %weight, %wide_activation : i32
  %so_far = arith.addi %sum, %part : i32
  %next = arith.addi %i, %one : index
  cf.br ^head(%next, %so_far : index, i32)
^end:
  return %sum : i32
}}
"""


@dataclass(frozen=True)
class LoopRow:
    """A row: codes u8 [k] of weights `step * code + low`, activations i8 [k]."""

    codes: NDArray[np.integer[Any]]
    activations: NDArray[np.integer[Any]]
    step: int
    low: int

    def __post_init__(self) -> None:
        if not 0 < len(self.codes) <= MOST or len(self.codes) != len(self.activations):
            raise RtlError(
                f"a loop over {len(self.codes)} codes and {len(self.activations)} activations",
                accepted=f"1 to {MOST} of each",
            )


def loop_sums(rows: Sequence[LoopRow], cache: Cache) -> list[int]:
    """The sum of each row as the circuit gives it; raises RtlError as simulations do."""
    executable = program(exported(LOOP_TEXT, LOOP), LOOP_TOP, cache, LOOP_DRIVER)
    parts = [np.array([len(rows)])]
    for row in rows:
        parts += [np.array([len(row.codes), row.step, row.low]), row.codes, row.activations]
    given = b"".join(part.astype("<i8").astype("<u4").tobytes() for part in parts)
    found = np.frombuffer(output_of(executable, given), "<i4").reshape(-1, 3)
    for number, (late, cycles, _sum) in enumerate(found):
        if late:
            raise RtlError(f"row {number} does not end within {cycles} cycles")
    return [int(one) for one in found[:, 2]]
