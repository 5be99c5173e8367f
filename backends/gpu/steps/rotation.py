"""Norms of heads, rotations and appends to the cache as one step."""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.dialects.builtin import TensorType, f16
from xdsl.ir import SSAValue

from nybble.backends.gpu.kernels.rows.rotate import Part, RotateSpec
from nybble.backends.gpu.steps.rows import norm_of, pair
from nybble.backends.gpu.steps.step import Slot, Step
from nybble.backends.gpu.steps.values import FULL, Storage, shape_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.fused.ops import RmsNormOp, RopeOp
from nybble.dialects.sparse_attn.ops import AppendKVOp


@dataclass(frozen=True)
class Turn:
    """What becomes of some heads: a norm, a rotation, an append, each of which may be missing."""

    norm: RmsNormOp | None
    rope: RopeOp | None
    append: AppendKVOp | None
    source: SSAValue

    @property
    def target(self) -> SSAValue:
        """Where they go."""
        if self.append is not None:
            return self.append.cache
        assert self.rope is not None
        return self.rope.result

    @property
    def position(self) -> SSAValue:
        """Of the first token."""
        op = self.append or self.rope
        assert op is not None
        return op.position

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """What is said of the context and of the features of a head."""
        found: set[tuple[int, int]] = set()
        if self.append is not None:
            _, context, size = shape_of(self.append.cache)
            found.add((context, size))
        if self.rope is not None:
            context, half = shape_of(self.rope.cos)
            found.add((context, 2 * half))
        return found

    def part(self, head_dim: int, storage: Storage) -> Part:
        """Their part of the kernel; raises NybbleError."""
        storage.require(self.source, FULL)
        norm = None if self.norm is None else norm_of(self.norm)
        heads = pair(self.source)[1] // head_dim
        if self.append is None:
            return Part(heads, norm=norm, output=storage.of(self.target))
        return Part(heads, self.rope is not None, cached=True, norm=norm)


def rotation_step(kernel: KernelOp, storage: Storage) -> Step:
    """The kernel of a rotation; raises NybbleError for tables or caches that differ."""
    found = list(turns(kernel))
    for turn in found:
        check_cache(turn)
    sizes = set[tuple[int, int]]().union(*(turn.sizes for turn in found))
    tables = dict.fromkeys((turn.rope.cos, turn.rope.sin) for turn in found if turn.rope)
    if len(sizes) > 1 or len(tables) > 1 or len({turn.position for turn in found}) > 1:
        raise NybbleError(
            "rotations and appends of one function that differ in head size, context, tables or "
            "position have no kernel on a GPU",
            accepted="equal ones",
        )
    ((context, size),) = sizes
    tokens, _ = pair(found[0].source)
    spec = RotateSpec(tokens, size, context, tuple(one.part(size, storage) for one in found))
    slots = {"position": Slot((found[0].position,))}
    for pair_of_tables in tables:
        slots |= {n: Slot((v,)) for n, v in zip(("cos", "sin"), pair_of_tables, strict=True)}
    for number, turn in enumerate(found):
        slots |= {f"x{number}": Slot((turn.source,)), f"y{number}": Slot((turn.target,))}
        if turn.norm is not None:
            slots[f"norm{number}"] = Slot((turn.norm.weight,))
    return Step(spec, slots)


def turns(kernel: KernelOp) -> Iterator[Turn]:
    """What a kernel does to each of its inputs."""
    for op in kernel.body.block.ops:
        if isinstance(op, AppendKVOp):
            rope = op.rows.owner
            if isinstance(rope, RopeOp):
                yield Turn(norm_before(rope), rope, op, source_of(rope))
            else:
                yield Turn(None, None, op, op.rows)
        elif isinstance(op, RopeOp):
            uses = [use.operation for use in op.result.uses]
            if not uses or not all(isinstance(one, AppendKVOp) for one in uses):
                yield Turn(norm_before(op), op, None, source_of(op))


def norm_before(rope: RopeOp) -> RmsNormOp | None:
    """The norm of the heads that are turned, where it is in the kernel."""
    owner = rope.input.owner
    return owner if isinstance(owner, RmsNormOp) else None


def source_of(rope: RopeOp) -> SSAValue:
    """What a kernel reads for a rotation."""
    norm = norm_before(rope)
    return rope.input if norm is None else norm.input


def check_cache(turn: Turn) -> None:
    """Raise NybbleError unless heads go where a kernel can write them."""
    if turn.append is not None:
        kind = turn.append.cache.type
        if not isinstance(kind, TensorType) or kind.element_type != f16:
            raise NybbleError(f"a cache {kind} has no kernel on a GPU", accepted="f16")
    if turn.norm is not None and turn.rope is not None:
        (length,) = shape_of(turn.norm.weight)
        size = 2 * shape_of(turn.rope.cos)[1]
        if length != size:
            raise NybbleError(
                f"a norm of {length} columns before heads of {size}", accepted=f"{size}"
            )
