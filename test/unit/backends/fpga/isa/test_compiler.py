"""What can be compiled, what is refused with its reason, and where things lie."""

from dataclasses import replace

import pytest

from nybble.backends.fpga.isa.compiler import Step, UnmappedError, compile_step, spread_bytes
from nybble.backends.fpga.isa.emitter import Access, Emitter
from nybble.backends.fpga.isa.encoding import encode
from nybble.backends.fpga.isa.matrix import FormatRefused, matrix_of
from nybble.backends.fpga.isa.memory import Ring, Room
from nybble.backends.fpga.isa.plan import check_fits, make_plan
from nybble.backends.fpga.isa.store import (
    buckets,
    compile_all,
    decode_step,
    prefill_step,
    stream_bytes,
)
from nybble.costmodel.targets.target import ResourceError
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.tools.shape_graph import shape_module

STEPS = (Step(1, 1, 16), Step(1, 1, 48), Step(16, 1, 16), Step(16, 3, 48))


def changed(tiny, old, new):
    """A tiny model with its text changed."""
    text = str(shape_module(tiny.shape(), "w8", tiny.CONTEXT, "f32"))
    assert old in text
    module = parse_module(make_context(), text.replace(old, new), "changed")
    return make_plan(module, ("layer_0",) * 2, tiny.CONTEXT, tiny.machine())


@pytest.mark.parametrize("step", STEPS)
def test_what_is_counted_is_what_would_be_built(tiny, step):
    plan = tiny.plan_of(tiny.shape(layers=3), "w4n8:16,head=w8")
    spread = compile_step(plan, replace(step, merged=False, shared=False))
    assert spread_bytes(plan, step) == stream_bytes(spread)
    assert spread_bytes(plan, step) == len(b"".join(map(encode, spread)))


def test_per_length_is_a_stream_for_each_length(tiny):
    plan = tiny.plan_of(tiny.shape(), "w4,head=w8", context=128)
    store = compile_all(plan)
    assert [*store.streams] == [*(f"decode_{16 * one}" for one in range(1, 9)), "prefill_128"]
    steps = [decode_step(one) for one in range(1, 129)]
    steps += [prefill_step(plan, one) for one in range(1, 129)]
    built = [compile_step(plan, replace(one, merged=False, shared=False)) for one in steps[::16]]
    assert store.per_length == 16 * sum(map(stream_bytes, built))
    assert store.bytes == sum(map(stream_bytes, store.streams.values()))


def test_buckets_cover_all_lengths(tiny):
    plan = tiny.plan_of(tiny.shape(), "w4,head=w8", context=512)
    found = {step for _, step in buckets(plan)}
    assert {decode_step(one) for one in range(1, 513)} <= found
    assert {prefill_step(plan, one) for one in range(1, 513)} <= found


def test_streams_fit_their_words(tiny):
    plan = tiny.plan_of(tiny.shape(), "w4,head=w8")
    for step in STEPS:
        assert b"".join(map(encode, compile_step(plan, step)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"silu"', '"gelu_tanh"', r"gates of 'gelu_tanh' on|gates of 'gelu_tanh' \(accepted: silu"),
        ('mask <"causal">', 'mask <"window(4)">', r"mask 'window\(4\)' \(accepted: causal"),
        ("%0 = fused.rms_norm %hidden,", "%h = fused.hadamard %hidden block 16 : tensor<?x64xf32>\n"
         "    %0 = fused.rms_norm %h,", r"'fused.hadamard' on the accelerator \(accepted: arith"),
        ("%16 = arith.addf %10, %15", "%16 = arith.addf %15, %15",
         "a layer whose result is not its input"),
    ],
)  # fmt: skip
def test_operations_without_instructions_are_refused(tiny, old, new, message):
    plan = changed(tiny, old, new)
    with pytest.raises(UnmappedError, match=message):
        compile_step(plan, Step(1, 1, 16))


def test_models_that_are_no_llama_are_refused(tiny):
    module = shape_module(tiny.shape(), "w8", 64, "f32")
    with pytest.raises(NybbleError, match=r"the layers are of 2 kinds \(accepted: layers that"):
        make_plan(module, ("layer_0", "head"), 64, tiny.machine())
    with pytest.raises(NybbleError, match=r"a layer with 0 attentions and 1 norms"):
        make_plan(module, ("head",), 64, tiny.machine())
    with pytest.raises(NybbleError, match=r"heads of 24 \(accepted: multiples of 16"):
        tiny.plan_of(tiny.shape(head=24))


@pytest.mark.parametrize(
    "spec", ["nf4", "w4g32z", "q4_k", "w1", "f16", "b1_58", "w8n2:4", "i4:g=8:s=f16", "w4g24"]
)
def test_formats_that_are_not_multiplied_are_refused(tiny, spec):
    with pytest.raises(FormatRefused, match=r"m: no accelerator multiplies .*accepted: integers"):
        matrix_of("m", formats.get(spec), 64, 192, tiny.machine())


@pytest.mark.parametrize("spec", ["w4", "w2g64", "w8n2:16", "q4_0", "q8_0", "w3g16n15:16"])
def test_tiles_have_all_rows_and_columns_once(tiny, spec):
    one = matrix_of("m", formats.get(spec), 150, 192, tiny.machine())
    assert one.slice == 80
    assert sum(tile.rows * tile.columns for tile in one.tiles) == one.slice * one.columns
    ends = [tile.address + tile.bytes for tile in one.tiles]
    assert [tile.address for tile in one.tiles] == [0, *ends[:-1]]
    assert one.bytes == ends[-1]
    assert max(tile.bytes for tile in one.tiles) <= one.most_bytes
    with pytest.raises(NybbleError, match=r"a tile of m takes [0-9]+ bytes \(accepted: up to 16,"):
        assert matrix_of("m", formats.get(spec), 150, 192, tiny.machine(weights=32)).tiles


def test_what_is_too_big_is_refused_by_how_much(tiny):
    small = tiny.machine(values=1 << 12)
    plan = tiny.plan_of(tiny.shape(), accelerator=small)
    with pytest.raises(
        ResourceError, match=r"buffer 'values' of vhk158 is [0-9]+ blocks of 16 too"
    ):
        compile_step(plan, Step(16, 1, 16))
    small = tiny.machine(weights=2048)
    plan = tiny.plan_of(tiny.shape(), accelerator=small)
    with pytest.raises(ResourceError, match=r"'weights' of vhk158 is [0-9]+ lines of 16 bytes too"):
        compile_step(plan, Step(1, 1, 128))
    small = replace(tiny.machine(), target=tiny.target_with_memory(1000))
    plan = tiny.plan_of(tiny.shape(), accelerator=small)
    with pytest.raises(ResourceError, match=r"0.00 GB do not fit 'hbm' of vhk158, 0.00 GB too man"):
        check_fits(plan, 0)


def test_room_is_given_out_first_fit():
    room = Room("values", 10, "here")
    first, second = room.take(4), room.take(4)
    assert (first, second) == (0, 4)
    room.free(first)
    assert room.take(3) == 0
    assert room.take(2) == 8
    assert room.peak == 10
    with pytest.raises(ResourceError, match="'values' of here is 2 blocks of 16 too small"):
        room.take(2)
    ring = Ring(10, "here")
    assert [ring.take(4) for _ in range(4)] == [0, 4, 0, 4]


def test_tokens_follow_from_what_is_read_and_written():
    emitter = Emitter()
    here, there = Access("values", 0, 4), Access("values", 4, 8)
    emitter.emit("ld", {}, writes=[here])
    emitter.emit("ld", {}, writes=[there])
    emitter.emit("mv", {}, reads=[there])
    emitter.emit("mv", {}, reads=[here])  # the token for `there` was the later one
    emitter.emit("ld", {}, writes=[here])
    emitter.emit("misc", {}, writes=[Access("codes", 0, 4)])
    found = emitter.instructions()
    assert [sorted(one.wait) for one in found] == [[], [], ["ld"], [], ["mv"], []]
    assert [sorted(one.release) for one in found] == [[], ["mv"], [], ["ld"], [], []]
