"""When units run: tokens, queues, channels; a stream that stops is found."""

from dataclasses import replace

import pytest

from nybble.backends.fpga.isa.assembly import assemble
from nybble.backends.fpga.isa.compiler import Step, compile_step
from nybble.backends.fpga.isa.machine import find_machine
from nybble.backends.fpga.isa.timing import DeadlockError, product_clocks, simulate, unrolled

MACHINE = replace(find_machine("vhk158"), latency=0.0)
CLOCK = 1 / MACHINE.clock


def seconds(text, machine=MACHINE):
    """Of assembly text."""
    return simulate(machine, [*assemble(text)]).seconds


def test_a_vector_product_takes_its_rows_in_turns():
    one = next(assemble("mv columns=256 keep=8 rows=33"))
    assert product_clocks(MACHINE, one) == 1024 // 64 * (128 + 24)
    two = next(assemble("mv columns=256 keep=16 rows=32 tokens=1"))
    assert product_clocks(MACHINE, two) == 2 * 512 // 64 * (256 + 24)


def test_a_matrix_product_takes_tokens_together():
    one = next(assemble("mm columns=256 keep=16 rows=1 tokens=7"))
    assert product_clocks(MACHINE, one) == 8 * (256 + 24)
    assert product_clocks(replace(MACHINE, matrix_tokens=32), one) == 4 * 8 * (256 + 24)


def test_norms_and_softmax_go_twice_through_the_lanes():
    once = seconds("misc operation=add blocks=100")
    twice = seconds("misc operation=rmsnorm blocks=100")
    assert twice - once == pytest.approx(100 * CLOCK)


def test_units_run_side_by_side_unless_tokens_say_otherwise():
    product, other = "mv columns=64 keep=16 rows=32", "misc operation=add blocks=600"
    alone = seconds(product), seconds(other)
    assert seconds(f"{product}\n{other}") == pytest.approx(max(alone))
    after = f"{product} release=misc\n{other} wait=mv"
    assert seconds(after) == pytest.approx(sum(alone))


def test_channels_serve_loads_and_stores_in_turn():
    load, store = "ld length=65536 loops=1 outer=1", "st blocks=2048"
    assert seconds(f"{load}\n{store}") == pytest.approx(seconds(load) + seconds(store))
    one = "ld channel=1 length=65536 loops=1 outer=1"
    assert seconds(one) == pytest.approx(MACHINE.channels * seconds(load))
    other = "st channel=2 blocks=2048"
    assert seconds(f"{one}\n{other}") == pytest.approx(max(seconds(one), seconds(other)))


def test_values_of_all_regions_cross_at_half_the_speed():
    share, memory = seconds("st mode=share blocks=2048"), seconds("st blocks=2048")
    assert share == pytest.approx(MACHINE.regions * 2 * memory)
    single = replace(MACHINE, regions=1)
    assert seconds("st mode=share blocks=2048", single) == pytest.approx(memory)


def test_data_come_later_than_the_channel_is_free():
    slow = replace(MACHINE, latency=1e-6)
    text = "ld length=64 loops=1 outer=1 release=misc\nmisc wait=ld operation=add blocks=1"
    assert seconds(text, slow) - seconds(text) == pytest.approx(1e-6)


def test_a_full_queue_holds_up_what_is_behind_it():
    waits = "\n".join("misc wait=mv operation=add blocks=1" for _ in range(4))
    first = "mv columns=64 keep=16 rows=32 release=misc\n" * 4
    last = "st blocks=4095 tokens=4"
    short = replace(MACHINE, queue=2)
    assert seconds(first + waits + "\n" + last, short) > seconds(first + waits + "\n" + last)


def test_a_loop_counts_as_often_as_it_is_carried_out(tiny):
    plan = tiny.plan_of(tiny.shape(layers=5), "w4,head=w8")
    for step in (Step(1, 1, 32), Step(16, 2, 32)):
        program = compile_step(plan, step)
        short, whole = (simulate(plan.machine, program, trace) for trace in (False, True))
        assert short.seconds == pytest.approx(whole.seconds)
        assert short.busy == pytest.approx(whole.busy)
        assert replace(short, seconds=0, busy={}) == replace(whole, seconds=0, busy={}, order=())
        assert len(whole.order) == len([*unrolled(program)])


def test_a_deadlock_is_found_and_says_who_waits():
    with pytest.raises(DeadlockError, match=r"deadlock: mv for misc at instruction 0; misc for mv"):
        seconds("mv wait=misc release=misc rows=1 keep=1\nmisc wait=mv release=mv blocks=1")


def test_a_release_that_was_forgotten_is_found(tiny):
    plan = tiny.plan_of(tiny.shape(), "w4,head=w8")
    program = [*compile_step(plan, Step(1, 1, 32))]
    simulate(plan.machine, program)
    found = [index for index, one in enumerate(program) if one.release]
    assert len(found) > 20
    for index in found[::7]:
        less = replace(program[index], release=frozenset())
        with pytest.raises(DeadlockError):
            simulate(plan.machine, [*program[:index], less, *program[index + 1 :]])


def test_a_wait_that_was_forgotten_is_found(tiny):
    plan = tiny.plan_of(tiny.shape(), "w4,head=w8")
    program = [*compile_step(plan, Step(1, 1, 32))]
    index = max(index for index, one in enumerate(program) if one.wait)
    less = replace(program[index], wait=frozenset())
    with pytest.raises(DeadlockError, match=r"tokens that nobody takes: .* to st \(accepted: a w"):
        simulate(plan.machine, [*program[:index], less, *program[index + 1 :]])
