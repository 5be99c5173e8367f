"""Norms of heads, rotations and appends to the cache as one step, and one that makes codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import TensorType, f16
from xdsl.ir import SSAValue

from nybble.backends.gpu.kernels.attention.coded import PARTS, CodedCache
from nybble.backends.gpu.kernels.attention.spec import is_read
from nybble.backends.gpu.kernels.rows.codes import CodesSpec
from nybble.backends.gpu.kernels.rows.rotate import Part, RotateSpec
from nybble.backends.gpu.steps.rows import norm_of, pair
from nybble.backends.gpu.steps.step import Slot, Step
from nybble.backends.gpu.steps.values import BRAIN, FULL, Storage, half_of, shape_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.fused.ops import RmsNormOp, RopeOp
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape
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
            _, context, size = cache_shape(self.append.cache)
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
        cache, rotates = coded_cache(self.append.cache), self.rope is not None
        ring, pinned = (cache.ring, cache.format.pinned) if cache else (0, 0)
        half = half_of(self.append.cache.type)
        return Part(heads, rotates, True, norm, half, ring, pinned)


def rotation_steps(kernel: KernelOp, storage: Storage) -> Iterator[Step]:
    """The kernel of a rotation, and what makes codes of the tokens that it leaves behind; raises
    NybbleError for tables or caches that differ."""
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
        slots |= {f"x{number}": Slot((turn.source,)), f"y{number}": target_slot(turn)}
        if turn.norm is not None:
            slots[f"norm{number}"] = Slot((turn.norm.weight,))
    yield Step(spec, slots)
    yield from codes_steps(tokens, found)


def target_slot(turn: Turn) -> Slot:
    """Where heads go: of a cache with codes, to the tokens that are kept as they are."""
    is_coded = turn.append is not None and coded_cache(turn.append.cache) is not None
    return Slot((turn.target,), "exact" if is_coded else "")


def codes_steps(tokens: int, found: Sequence[Turn]) -> Iterator[Step]:
    """One for all caches with codes that are alike."""
    sides = dict[CodedCache, dict[str, Turn]]()
    for turn in found:
        cache = None if turn.append is None else coded_cache(turn.append.cache)
        if cache is not None:
            assert isinstance(turn.target.type, CacheType)
            sides.setdefault(cache, {})[turn.target.type.side.data] = turn
    for cache, turns_of in sides.items():
        slots = {"position": Slot((found[0].position,))}
        for side, turn in turns_of.items():
            slots |= cache_slots(side, turn.target)
        yield Step(CodesSpec(tokens, cache, tuple(turns_of)), slots)


def cache_slots(side: str, cache: SSAValue) -> dict[str, Slot]:
    """What a cache with codes has of keys or values."""
    parts = {f"{side[0]}_{part}": Slot((cache,), part) for part in PARTS}
    return {side[0]: Slot((cache,)), **parts}


def coded_cache(cache: SSAValue) -> CodedCache | None:
    """What a cache with codes is; None for one of numbers; raises NybbleError for any other."""
    kind = cache.type
    if isinstance(kind, TensorType) and kind.element_type == f16:
        return None
    if half_of(kind) == BRAIN:
        return None
    if isinstance(kind, CacheType) and kind.room.data and is_read(kind.spec.data):
        heads, context, size = cache_shape(cache)
        return CodedCache(heads, size, context, kind.spec.data, kind.room.data)
    raise NybbleError(
        f"a cache {kind} has no kernel on a GPU",
        accepted="f16, bf16, kvN or kiviN, without -h and -i8",
    )


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
        coded_cache(turn.append.cache)
    if turn.norm is not None and turn.rope is not None:
        (length,) = shape_of(turn.norm.weight)
        size = 2 * shape_of(turn.rope.cos)[1]
        if length != size:
            raise NybbleError(
                f"a norm of {length} columns before heads of {size}", accepted=f"{size}"
            )
