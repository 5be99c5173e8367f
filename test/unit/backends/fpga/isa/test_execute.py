"""What streams compute, against the same arithmetic tensor by tensor and against the operators."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.fpga.isa.compiler import Step, compile_step
from nybble.backends.fpga.isa.encoding import Instruction, decode, encode
from nybble.backends.fpga.isa.execute import Simulator, grouped_sums
from nybble.backends.fpga.isa.image import pack, unpack
from nybble.backends.fpga.isa.instructions import OPERATIONS
from nybble.backends.fpga.isa.timing import simulate
from nybble.dialects.interpreter import Interpreter
from nybble.frontend.weight_rules import parse_rules
from nybble.tools.shape_graph import shape_module

CASES = {
    "dense": ("w8,head=w8", {}, {}),
    "mixed": ("w4n8:16,head=w8,down_proj=w4g32,q_proj=w4n2:16", {}, {}),
    "odd": ("w3,head=w8", {"hidden": 80, "feed_forward": 112, "vocabulary": 100}, {}),
    "padded heads": ("w4,head=w4n4:16", {"heads": 6, "kv_heads": 3, "feed_forward": 100}, {}),
    "one region": ("w4,head=w2", {"heads": 4, "kv_heads": 4}, {"regions": 1}),
    "small buffer": ("w8,head=w8", {"hidden": 128}, {"weights": 4096}),
}
TOKENS = 21


def run(model, count, program=compile_step):
    """Logits after a prompt of TOKENS and after each of `count` more tokens; and the hidden."""
    sizes = model.plan.sizes
    hidden = np.random.default_rng(1).standard_normal((TOKENS + count, sizes.hidden))
    hidden = hidden.astype(np.float32)
    simulator = Simulator(model.plan, model.memories())
    vocabulary = len(model.head.weights["lm_head_weight"].codes)
    simulator.put_hidden(hidden[:TOKENS], 16)
    simulator.last = (TOKENS - 1) % 16
    simulator.run(program(model.plan, Step(16, 2, 32)))
    found = [simulator.logits(vocabulary)]
    simulator.last = 0
    for place in range(TOKENS, TOKENS + count):
        simulator.position = place
        simulator.put_hidden(hidden[place : place + 1], 1)
        simulator.run(program(model.plan, Step(1, 1, 32)))
        found.append(simulator.logits(vocabulary))
    return found, hidden


@pytest.mark.parametrize("name", CASES)
def test_prompts_and_answers_are_those_of_the_reference(tiny, name):
    rules, sizes, units = CASES[name]
    model = tiny.tiny(tiny.shape(**sizes), rules, tiny.machine(**units))
    found, hidden = run(model, 2)
    for index, logits in enumerate(found):
        expected = tiny.reference(model, hidden[: TOKENS + index])
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(logits, expected, atol=2e-3 * np.abs(expected).max())


def test_the_words_alone_give_the_same(tiny):
    model = tiny.tiny(tiny.shape(), "w4n8:16,head=w8")

    def through_words(plan, step):
        data = b"".join(map(encode, compile_step(plan, step)))
        return tuple(decode(data))

    for one, other in zip(run(model, 1)[0], run(model, 1, through_words)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_layer_with_instructions_of_its_own_and_each_channel_too(tiny):
    model = tiny.tiny(tiny.shape(), "w4,head=w8")

    def spread(plan, step):
        return compile_step(plan, replace(step, merged=False, shared=False))

    for one, other in zip(run(model, 1)[0], run(model, 1, spread)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def in_order_of_ends(model, step, program):
    """Logits of a prompt when instructions are carried out in the order in which they end."""
    order = simulate(model.plan.machine, program, trace=True).order
    hidden = np.random.default_rng(1).standard_normal((TOKENS, model.plan.sizes.hidden))
    simulator = Simulator(model.plan, model.memories())
    simulator.put_hidden(hidden.astype(np.float32), 16)
    simulator.last = (TOKENS - 1) % 16
    simulator.run(program, order)
    return simulator.logits(len(model.head.weights["lm_head_weight"].codes))


def test_tokens_keep_units_that_run_side_by_side_in_order(tiny):
    model, step = tiny.tiny(tiny.shape(), "w4,head=w8"), Step(16, 2, 32)
    program = compile_step(model.plan, step)
    order = simulate(model.plan.machine, program, trace=True).order
    assert [*order] != sorted(order)
    expected = run(model, 0)[0][0]
    np.testing.assert_array_equal(in_order_of_ends(model, step, program), expected)


def test_without_a_wait_the_result_is_another(tiny):
    slow = tiny.machine(latency=1e-4)
    model, step = tiny.tiny(tiny.shape(), "w4,head=w8", slow), Step(16, 2, 32)
    program = [*compile_step(model.plan, step)]
    expected = run(model, 0)[0][0]
    for index, one in enumerate(program):
        if "ld" in one.wait and one.unit == "mm":
            program[index] = replace(one, wait=one.wait - {"ld"})
        elif "mm" in one.release and one.unit == "ld":
            program[index] = replace(one, release=one.release - {"mm"})
    assert not np.array_equal(in_order_of_ends(model, step, program), expected)


def test_it_is_close_to_the_operators_in_floats(tiny):
    """Codes of 8 bits for activations, keys and values are all that is between them."""
    sizes = tiny.shape()
    model = tiny.tiny(sizes, "w8,head=w8")
    found, hidden = run(model, 1)
    module = shape_module(sizes, "w8", tiny.CONTEXT, "f32", parse_rules("w8,head=w8"))
    interpreter = Interpreter(module)
    stream, cache = hidden, np.zeros((2, tiny.CONTEXT, 16), np.float32)
    for layer in model.layers:
        names = [one.name_hint for one in model.plan.layer.body.block.args[6:]]
        given = [{**layer.weights, **layer.norms}[name] for name in names]
        stream, *_ = interpreter.call(
            "layer_0", stream, 0, model.cos, model.sin, cache, cache, *given
        )
    names = [one.name_hint for one in model.plan.head.body.block.args[1:]]
    given = [{**model.head.weights, **model.head.norms}[name] for name in names]
    (logits,) = interpreter.call("head", stream, *given)
    for row, expected in zip(found, logits[TOKENS - 1 :], strict=True):
        assert np.linalg.norm(row - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_in_fields_read_back(bits):
    numbers = np.random.default_rng(bits).integers(0, 1 << bits, 48)
    raw = np.frombuffer(pack(numbers, bits), np.uint8)
    np.testing.assert_array_equal(unpack(raw, bits, 48), numbers)


def test_sums_are_exact_integers():
    random = np.random.default_rng(0)
    codes, numbers = random.integers(-127, 128, (3, 64)), random.integers(-128, 128, (5, 64))
    ones = np.ones((5, 2), np.float32)
    np.testing.assert_array_equal(grouped_sums(codes, numbers, ones, 32), codes @ numbers.T)


def test_loads_in_three_loops_and_a_layer_norm(tiny):
    """What the compiler has no use for yet: FlightLLM's third loop and layer norms."""
    model = tiny.tiny(tiny.shape(), "w8,head=w8")
    simulator = Simulator(model.plan, model.memories())
    region = simulator.regions[0]
    region.memory[:4096] = np.arange(4096) % 251
    load = {"length": 16, "loops": 2, "outer": 3, "stride": 64, "outer_stride": 512, "target": 4}
    simulator.step(Instruction("ld", load), 0)
    starts = [outer * 512 + inner * 64 for outer in range(3) for inner in range(2)]
    expected = np.concatenate([region.memory[at : at + 16] for at in starts])
    np.testing.assert_array_equal(region.weights[64 : 64 + 96], expected)

    values = np.random.default_rng(2).standard_normal((1, 64)).astype(np.float16)
    for one in simulator.regions:
        one.values[:4] = values.reshape(4, 16)
        one.params[: 16 + 256] = 0
        one.params[16 : 16 + 256] = np.ones(64, np.float32).view(np.uint8)
    norm = {"operation": OPERATIONS.index("layernorm"), "blocks": 4, "right": 1, "output": 8}
    simulator.step(Instruction("misc", norm), 0)
    wide = values.astype(np.float32)
    np.testing.assert_allclose(
        region.values[8:12].reshape(1, 64), (wide - wide.mean()) / wide.std(), atol=2e-3
    )
