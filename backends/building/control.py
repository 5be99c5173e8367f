"""Loops and branches that are being built: `with b.for_(..) as loop`, `with b.if_(..)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from xdsl.dialects import scf
from xdsl.ir import Block, Operation, Region

from nybble.backends.building.values import Emitter, Value


class Loop(ABC):
    """A loop whose body is written in a `with` block; `args` are the carried values in it, and
    after it `results` holds them."""

    def __init__(self, builder: Emitter, body: Block, inits: Sequence[Value]):
        self._builder = builder
        self._outer = builder.block
        self._body = body
        self._types = [value.type for value in inits]
        self._yielded: Sequence[Value] = ()
        self.args = [Value(builder, one) for one in body.args[len(body.args) - len(inits) :]]
        self.results: list[Value] = []

    @abstractmethod
    def _made(self) -> Operation:
        """The operation, around the finished body."""

    def yield_(self, *values: Value) -> None:
        """The values carried to the next round; call once, last, when there are any."""
        self._yielded = values

    def __enter__(self) -> Self:
        self._builder.block = self._body
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        assert len(self._yielded) == len(self._types), "yield_ must give every carried value"
        self._builder.emit_effect(scf.YieldOp, self._yielded)
        made = self._made()
        self._outer.add_op(made)
        self._builder.block = self._outer
        self.results = [Value(self._builder, result) for result in made.results]


class For(Loop):
    """An `scf.for`; `iv` counts."""

    def __init__(self, builder: Emitter, bounds: Sequence[Value], inits: Sequence[Value]):
        types = [bounds[0].type, *(value.type for value in inits)]
        super().__init__(builder, Block(arg_types=types), inits)
        self._operands = (*bounds, *inits)
        self.iv = Value(builder, self._body.args[0])

    def _made(self) -> Operation:
        return scf.ForOp.create(
            operands=[value.ssa for value in self._operands],
            result_types=self._types,
            regions=[Region(self._body)],
        )


class While(Loop):
    """An `scf.while`; `condition` gives the bit that a round of `args` begins with."""

    def __init__(
        self,
        builder: Emitter,
        inits: Sequence[Value],
        condition: Callable[[Sequence[Value]], Value],
    ):
        types = [value.type for value in inits]
        super().__init__(builder, Block(arg_types=types), inits)
        self._inits = inits
        self._before = builder.block = Block(arg_types=types)
        carried = [Value(builder, argument) for argument in self._before.args]
        builder.emit_effect(scf.ConditionOp, (condition(carried), *carried))
        builder.block = self._outer

    def _made(self) -> Operation:
        return scf.WhileOp.create(
            operands=[value.ssa for value in self._inits],
            result_types=self._types,
            regions=[Region(self._before), Region(self._body)],
        )


class If:
    """An `scf.if` being built, for its effects: `with b.if_(c) as branch`, `branch.otherwise()`."""

    def __init__(self, builder: Emitter, cond: Value):
        self._builder = builder
        self._outer = builder.block
        self._then = Block()
        self._else = Region()
        operation = scf.IfOp.create(operands=[cond.ssa], regions=[Region(self._then), self._else])
        self._outer.add_op(operation)
        self._current = self._then

    def otherwise(self) -> If:
        """The else branch: `with branch.otherwise(): ..`, right after the `with` of the branch."""
        self._current = Block()
        self._else.add_block(self._current)
        return self

    def __enter__(self) -> Self:
        self._builder.block = self._current
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._builder.emit_effect(scf.YieldOp, ())
            self._builder.block = self._outer
