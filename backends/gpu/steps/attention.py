"""Attention as a step: of one token by keys that are split, of many as a prompt."""

from xdsl.dialects.builtin import TensorType, f16
from xdsl.ir import Attribute

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.kernels.attention.prefill import PrefillSpec
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec, is_read
from nybble.backends.gpu.steps.rotation import cache_slots
from nybble.backends.gpu.steps.rows import pair
from nybble.backends.gpu.steps.step import LENGTHS, Slot, Spec, Step
from nybble.backends.gpu.steps.values import HALF, Storage, half_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape
from nybble.dialects.sparse_attn.kv import KEYS, VALUES
from nybble.dialects.sparse_attn.ops import AttentionOp

KEYS_A_BLOCK = 256
"""Keys that a block of threads should have at least, before heads are split among more blocks."""
CAUSAL = "causal"


def attention_step(op: AttentionOp, storage: Storage, arch: Arch) -> Step:
    """Of queries to all keys so far; raises NybbleError for another mask."""
    mask, kind = str(op.mask.mask), op.keys.type
    if mask != CAUSAL or op.softcap is not None:
        what = "a soft cap" if op.softcap is not None else f"mask '{mask}'"
        raise NybbleError(f"attention with {what} has no kernel on a GPU", accepted=CAUSAL)
    cache, room = cache_of(kind)
    half = half_of(kind)
    storage.require(op.query, half)
    heads, context, size = cache_shape(op.keys)
    tokens, columns = pair(op.query)
    group, scale = columns // (heads * size), op.scale.value.data
    if tokens > 1:
        name = cache if room else ""
        spec: Spec = PrefillSpec(
            1, heads, group, size, context, tokens, scale, half, cache=name, room=room
        )  # fmt: skip
    else:
        splits = max(1, min(context // KEYS_A_BLOCK, 2 * arch.board.sms // heads))
        unified = op.softmax is not None and op.softmax.data == "unified"
        softmax = "unified" if unified else "online"
        spec = DecodeSpec(
            1, heads, group, size, context, scale, cache, room, softmax, splits=splits
        )  # fmt: skip
    slots = {
        "q": Slot((op.query,)), "k": Slot((op.keys,)), "v": Slot((op.values,)),
        "lengths": Slot(form=LENGTHS), "out": Slot((op.result,)),
    }  # fmt: skip
    if room:
        slots |= cache_slots(KEYS, op.keys) | cache_slots(VALUES, op.values)
    return Step(spec, slots)


def cache_of(kind: Attribute) -> tuple[str, int]:
    """The format of a cache and its room for tokens as they are; raises NybbleError."""
    if isinstance(kind, CacheType) and is_read(kind.spec.data):
        return kind.spec.data, kind.room.data
    if isinstance(kind, TensorType) and kind.element_type == f16:
        return HALF, 0
    raise NybbleError(
        f"attention over {kind} has no kernel on a GPU",
        accepted="a cache of f16, bf16, kvN or kiviN",
    )
