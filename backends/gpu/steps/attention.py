"""Attention as steps: of one token by keys that are split, of many as a prompt, and in parts.

Where a mask has a list of blocks, one step before puts it in the order in which kernels read it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType, f16
from xdsl.ir import Attribute, SSAValue

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.kernels.attention.lists import MOST_BLOCKS, ListsSpec
from nybble.backends.gpu.kernels.attention.parts import PART, FinishSpec, MergeSpec
from nybble.backends.gpu.kernels.attention.prefill import ROWS, PrefillSpec
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec, is_read
from nybble.backends.gpu.steps.rotation import cache_slots
from nybble.backends.gpu.steps.rows import pair
from nybble.backends.gpu.steps.step import LENGTHS, Slot, Spec, Step
from nybble.backends.gpu.steps.values import FULL, HALF, Storage, half_of, shape_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.shapes import check_rank
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape
from nybble.dialects.sparse_attn.kv import KEYS, VALUES
from nybble.dialects.sparse_attn.masks.selected import Selected
from nybble.dialects.sparse_attn.ops import AttentionOp, FinishOp, MergeOp, PartialOp

KEYS_A_BLOCK = 256
"""Keys that a block of threads should have at least, before heads are split among more blocks."""
CAUSAL = "causal"
ACCEPTED = f"{CAUSAL}, or blocks(size) or pages(size,count) alone"
LIST, COUNTS = "block_list", "block_counts"
Slots = Mapping[str, Slot]


def attention_steps(op: AttentionOp, storage: Storage, arch: Arch) -> Iterator[Step]:
    """Of queries to all keys so far, or those of listed blocks; raises NybbleError for others."""
    block = block_of(op)
    storage.require(op.query, half_of(op.keys.type))
    if pair(op.query)[0] == 1:
        unified = op.softmax is not None and op.softmax.data == "unified"
        softmax = "unified" if unified else "online"
        spec: Spec = replace(decode_spec(op, arch, block), softmax=softmax)
        copies = 1
    else:
        spec = prefill_spec(op, block)
        copies = spec.group * spec.row_tiles
    listed = {}
    if block:
        yield lists_step(op, block, copies)
        listed = list_slots(op)
    yield Step(spec, {**read_slots(op), **listed, "out": Slot((op.result,))})


def partial_steps(op: PartialOp, storage: Storage, arch: Arch) -> Iterator[Step]:
    """The same before its division, of one token, or of some of different texts that share keys."""
    block, (rows, _) = block_of(op), pair(op.query)
    storage.require(op.query, half_of(op.keys.type))
    if rows > 1 and op.shared is None:
        raise NybbleError(
            f"a part of attention of {rows} tokens of one text has no kernel on a GPU",
            accepted="one token, or tokens of different texts that share their keys (`shared`)",
        )
    listed = {}
    if block:
        yield lists_step(op, block, 1)
        listed = list_slots(op)
    made = {name: Slot((getattr(op, name),)) for name in PART}
    spec = replace(decode_spec(op, arch, block), texts=rows, part=True)
    yield Step(spec, {**read_slots(op), **listed, **made})


def merge_step(op: MergeOp, storage: Storage) -> Step:
    """Two parts become one."""
    slots: dict[str, Slot] = {}
    for prefix in ("left_", "right_", ""):
        for name in PART:
            value = getattr(op, prefix + name)
            storage.require(value, FULL)
            slots[prefix + name] = Slot((value,))
    return Step(MergeSpec(*heads_of(op.max, op.acc)), slots)


def finish_step(op: FinishOp, storage: Storage) -> Step:
    """A part becomes a result."""
    for value in (op.sum, op.acc):
        storage.require(value, FULL)
    spec = FinishSpec(*heads_of(op.sum, op.acc), storage.of(op.result))
    return Step(spec, {"sum": Slot((op.sum,)), "acc": Slot((op.acc,)), "y": Slot((op.result,))})


def heads_of(total: SSAValue, acc: SSAValue) -> tuple[int, int]:
    """Rows of all heads of a part, and features of a head."""
    rows, heads = shape_of(total)
    return rows * heads, shape_of(acc)[1] // heads


def decode_spec(op: AttentionOp | PartialOp, arch: Arch, block: int) -> DecodeSpec:
    """What the kernel of one token is made for."""
    cache, room = cache_of(op.keys.type)
    heads, context, size = cache_shape(op.keys)
    group = pair(op.query)[1] // (heads * size)
    splits = max(1, min(context // KEYS_A_BLOCK, 2 * arch.board.sms // heads))
    return DecodeSpec(
        1, heads, group, size, context, op.scale.value.data, cache, room, block=block,
        splits=splits,
    )  # fmt: skip


def prefill_spec(op: AttentionOp, block: int) -> PrefillSpec:
    """What the kernel of many tokens is made for."""
    cache, room = cache_of(op.keys.type)
    heads, context, size = cache_shape(op.keys)
    tokens, columns = pair(op.query)
    if block not in (0, ROWS):
        raise NybbleError(
            f"attention of {tokens} tokens to blocks of {block} keys has no kernel on a GPU",
            accepted=f"blocks of {ROWS} keys",
        )
    return PrefillSpec(
        1, heads, columns // (heads * size), size, context, tokens, op.scale.value.data,
        half_of(op.keys.type), bool(block), cache=cache if room else "", room=room,
    )  # fmt: skip


def block_of(op: AttentionOp | PartialOp) -> int:
    """Keys of a listed block, 0 where all keys are seen; raises NybbleError for another mask."""
    mask = op.mask.mask
    if str(mask) == CAUSAL and op.softcap is None:
        return 0
    if op.softcap is not None or not isinstance(mask, Selected) or mask.recent:
        what = "a soft cap" if op.softcap is not None else f"mask '{mask}'"
        raise NybbleError(f"attention with {what} has no kernel on a GPU", accepted=ACCEPTED)
    (listed,) = op.selected
    rows = check_rank("a list", listed, 3)[1]
    one = rows == 1 or (rows == DYNAMIC_INDEX and pair(op.query)[0] == 1)
    if not one:
        raise NybbleError(
            f"attention with a list of {'each' if rows == DYNAMIC_INDEX else rows} row(s) of "
            "queries has no kernel on a GPU",
            accepted="one list for all queries of a call",
        )
    return mask.size


def lists_step(op: AttentionOp | PartialOp, block: int, copies: int) -> Step:
    """The list of a mask for each head of the cache, and for `copies` that read the same."""
    heads, context, _ = cache_shape(op.keys)
    entries, blocks = check_rank("a list", op.selected[0], 3)[2], context // block
    if blocks > MOST_BLOCKS:
        raise NybbleError(
            f"a context of {blocks} blocks has no kernel on a GPU", accepted=f"{MOST_BLOCKS}"
        )
    return Step(
        ListsSpec(heads, copies, entries, blocks),
        {"entries": Slot((op.selected[0],)), **list_slots(op)},
    )


def list_slots(op: AttentionOp | PartialOp) -> Slots:
    """The lists as kernels of attention read them."""
    return {name: Slot((op.selected[0],), name) for name in (LIST, COUNTS)}


def read_slots(op: AttentionOp | PartialOp) -> Slots:
    """Queries, the cache, and how many keys there are."""
    slots = {
        "q": Slot((op.query,)), "k": Slot((op.keys,)), "v": Slot((op.values,)),
        "lengths": Slot(form=LENGTHS),
    }  # fmt: skip
    if cache_of(op.keys.type)[1]:
        slots |= cache_slots(KEYS, op.keys) | cache_slots(VALUES, op.values)
    return slots


def cache_of(kind: Attribute) -> tuple[str, int]:
    """The format of a cache and its room for tokens as they are; raises NybbleError."""
    if isinstance(kind, CacheType) and is_read(kind.spec.data):
        return kind.spec.data, kind.room.data
    if isinstance(kind, TensorType) and kind.element_type == f16:
        return HALF, 0
    raise NybbleError(
        f"attention over {kind} has no kernel on a GPU",
        accepted="a cache of f16, bf16, kvN or kiviN, without -h and -i8",
    )
