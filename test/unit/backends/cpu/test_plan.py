"""Plans check themselves, survive JSON, and give temporary buffers places that do not collide."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.backends.cpu import arena
from nybble.backends.cpu.plan import (
    Buffer,
    BufferRef,
    Config,
    Kernel,
    Kind,
    Plan,
    PlanError,
    Program,
    Step,
)
from nybble.backends.cpu.plan_json import from_json, to_json

BUFFERS = (
    Buffer("x", 64, Kind.IO),
    Buffer("w", 1000, Kind.WEIGHT),
    Buffer("s", 64, Kind.STATE),
    Buffer("a", 64, Kind.ARENA),
    Buffer("b", 64, Kind.ARENA),
    Buffer("c", 256, Kind.SCRATCH),
)
KERNELS = (
    Kernel("mul", (64, 500, 64), "rrw"),
    Kernel("add", (64, 64), "ru"),
    Kernel("tmp", (64, 200), "ru"),
)
CONFIG = Config(
    context=8, chunk=4, threads=2, vocab=3, extra={"eos": [1, 2], "name": "m"}, first=-1
)


def step(kernel: str, *refs: str | tuple[str, int], barrier: bool = True) -> Step:
    pairs = ((ref, 0) if isinstance(ref, str) else ref for ref in refs)
    return Step(kernel, tuple(BufferRef(*pair) for pair in pairs), barrier)


def plan(*steps: Step, **changes: Any) -> Plan:
    fields = {"buffers": BUFFERS, "kernels": KERNELS, "config": CONFIG}
    return Plan(programs=(Program("main", steps),), **(fields | changes))


GOOD = plan(
    step("mul", "x", ("w", 500), "a"),
    step("tmp", "a", ("c", 56), barrier=False),
    step("add", "x", "s"),
    step("mul", "a", "w", "b"),
    step("add", "b", "x"),
)


def test_json_round_trip() -> None:
    assert from_json(json.loads(json.dumps(to_json(GOOD)))) == GOOD


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan(step("div", "x")), "step 0 of 'main' calls 'div', which is no kernel"),
        (lambda: plan(step("add", "x")), r"passes 1 buffers to 'add' \(accepted: 2\)"),
        (lambda: plan(step("add", "x", "q")), "names 'q', which is no buffer of the plan"),
        (
            lambda: plan(step("add", "x", ("s", 4))),
            "'add' needs 64 bytes of 's' from 4 on, and it has 64",
        ),
        (lambda: plan(step("add", "x", ("s", -4))), "from -4 on"),
        (lambda: plan(step("mul", "x", ("w", 501), "a")), "needs 500 bytes of 'w' from 501 on"),
        (lambda: plan(step("add", "x", "w")), "'add' would write 'w', a weight"),
        (lambda: plan(step("add", "a", "x")), "reads 'a' before any step wrote it"),
        (lambda: plan(step("add", "x", "a")), "reads 'a' before any step wrote it"),
        (
            lambda: plan(step("mul", "x", "w", "a", barrier=False), step("add", "a", "x")),
            "step 1 of 'main' and a step before it both touch 'a' and no barrier",
        ),
        (
            lambda: plan(step("mul", "x", "w", "a", barrier=False), step("add", "s", "x")),
            "both touch 'x'",
        ),
        (lambda: plan(buffers=(*BUFFERS, BUFFERS[0])), "two buffers are called 'x'"),
        (lambda: plan(buffers=(Buffer("", 4, Kind.IO),)), "a buffer without a name"),
        (lambda: plan(kernels=(*KERNELS, KERNELS[1])), "two kernels are called 'add'"),
        (
            lambda: replace(GOOD, programs=(Program("p", ()), Program("p", ()))),
            "two programs are called 'p'",
        ),
        (lambda: plan(buffers=(Buffer("x", 0, Kind.IO),)), "buffer 'x' has bytes: 0"),
        (lambda: plan(buffers=(Buffer("x", 1 << 60, Kind.IO),)), "buffer 'x' has bytes"),
        (lambda: plan(kernels=(Kernel("k", (4, 4), "r"),)), "accepted: 2 letters of r, w, u"),
        (lambda: plan(kernels=(Kernel("k", (4,), "x"),)), "kernel 'k' has access 'x'"),
        (lambda: plan(kernels=(Kernel("k", (-4,), "r"),)), "has an argument of bytes: -4"),
        (lambda: plan(config=replace(CONFIG, chunk=9)), r"chunk: 9 \(accepted: 1 to 8\)"),
        (lambda: plan(config=replace(CONFIG, context=0)), "context: 0"),
        (lambda: plan(config=replace(CONFIG, threads=0)), "threads: 0"),
        (lambda: plan(config=replace(CONFIG, vocab=-1)), "vocab: -1"),
        (lambda: plan(config=replace(CONFIG, first=-2)), r"first: -2 \(accepted: -1 to 0\)"),
    ],
)
def test_a_plan_that_does_not_fit_together(make: Callable[[], Plan], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make()


def test_steps_may_share_what_they_read() -> None:
    made = plan(step("mul", "x", "w", "a", barrier=False), step("mul", "x", "w", "b"))
    assert [one.barrier for one in made.programs[0].steps] == [False, True]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), [], "the plan is a list"),
        (("buffers",), None, "buffers is None"),
        (("buffers", 0), {}, "a buffer is a dict"),
        (("buffers", 0), ["x", 64], "a buffer has 2 items"),
        (("buffers", 0, 0), 5, "a buffer's name is 5"),
        (("buffers", 0, 1), "64", "a buffer's size is '64'"),
        (("buffers", 0, 1), 64.0, "a buffer's size is 64.0"),
        (("buffers", 0, 1), True, "a buffer's size is True"),
        (("buffers", 0, 1), -1, "buffer 'x' has bytes: -1"),
        (("buffers", 0, 2), "wieght", "a buffer of kind 'wieght' .accepted: weight, state"),
        (("kernels", 0, 1), [64, 64], "accepted: 2 letters"),
        (("kernels", 0, 1, 0), None, "an argument's size is None"),
        (("kernels", 0, 1, 0), 65, "'mul' needs 65 bytes of 'x' from 0 on, and it has 64"),
        (("programs", 0), "main", "a program is 'main'"),
        (("programs", 0, "name"), None, "a program's name is None"),
        (("programs", 0, "steps", 0, 0), "nothing", "calls 'nothing', which is no kernel"),
        (("programs", 0, "steps", 0, 1, 0), ["x"], "an argument has 1 items"),
        (("programs", 0, "steps", 0, 1, 0, 1), 1 << 70, "needs 64 bytes of 'x'"),
        (("programs", 0, "steps", 0, 1, 0, 0), "z", "names 'z', which is no buffer"),
        (("programs", 0, "steps", 0, 2), 1, "a step's barrier is 1"),
        (("config",), None, "config is None"),
        (("config", "context"), "8", "context is '8'"),
        (("config", "extra"), [], "extra is a list"),
    ],
)
def test_json_that_is_no_plan(path: tuple[Any, ...], value: Any, message: str) -> None:
    tree: Any = {"root": to_json(GOOD)}
    parent, key = tree, "root"
    for part in path:
        parent, key = parent[key], part
    parent[key] = value
    with pytest.raises(PlanError, match=message):
        from_json(tree["root"])


def test_temporaries_share_memory_over_time() -> None:
    chain = [Buffer(f"t{i}", 1000 + i, Kind.ARENA) for i in range(10)]
    kernels = [Kernel("first", (1000,), "w")]
    steps = [step("first", "t0")]
    for i in range(9):
        kernels.append(Kernel(f"k{i}", (1000 + i, 1001 + i), "rw"))
        steps.append(step(f"k{i}", f"t{i}", f"t{i + 1}"))
    made = plan(*steps, buffers=tuple(chain), kernels=tuple(kernels))
    assert arena.temporaries(made).bytes == 2 * arena.aligned(1000)


def test_what_two_programs_name_keeps_its_place() -> None:
    buffers = (Buffer("h", 64, Kind.ARENA), Buffer("a", 128, Kind.ARENA), Buffer("b", 64, "arena"))
    kernels = (Kernel("w64", (64,), "w"), Kernel("w128", (128,), "w"), Kernel("r64", (64,), "r"))
    programs = (
        Program("one", (step("w128", "a"), step("w64", "h"))),
        Program("two", (step("w64", "b"), step("r64", "h"))),
    )
    made = Plan(buffers, kernels, programs, CONFIG)
    assert arena.temporaries(made).offsets == {"a": 0, "b": 0, "h": 128}


def test_fixed_buffers_and_weights_lie_in_order() -> None:
    assert arena.io(GOOD).offsets == {"x": 0}
    assert arena.states(GOOD).offsets == {"s": 0}
    buffers = (Buffer("p", 1, Kind.WEIGHT), Buffer("q", 65, Kind.WEIGHT))
    placed = arena.weights(plan(buffers=buffers))
    assert (placed.offsets, placed.bytes) == ({"p": 0, "q": 64}, 192)


@st.composite
def random_plans(draw: st.DrawFn) -> Plan:
    """Plans of one or two programs whose temporaries are written first and used at random."""
    names = [f"t{i}" for i in range(draw(st.integers(1, 8)))]
    kinds = st.sampled_from([Kind.ARENA, Kind.SCRATCH])
    buffers = tuple(Buffer(name, draw(st.integers(1, 300)), draw(kinds)) for name in names)
    kernels = tuple(Kernel(f"w_{b.name}", (b.bytes,), "w") for b in buffers)
    programs: list[Program] = []
    for index in range(draw(st.integers(1, 2))):
        used = draw(st.lists(st.sampled_from(names), max_size=12))
        programs.append(Program(str(index), tuple(step(f"w_{name}", name) for name in used)))
    return Plan(buffers, kernels, tuple(programs), CONFIG)


@settings(max_examples=200, deadline=None)
@given(random_plans())
def test_buffers_alive_together_do_not_overlap(made: Plan) -> None:
    placed = arena.temporaries(made)
    for program in made.programs:
        used = [step.args[0].buffer for step in program.steps]
        for time, name in enumerate(used):
            alive = {
                other
                for other in used
                if made.buffer_table[other].kind is Kind.ARENA
                and used.index(other) <= time <= len(used) - 1 - used[::-1].index(other)
            }
            for other in (alive | (made.shared_between_programs & set(placed.offsets))) - {name}:
                if made.buffer_table[other].kind is Kind.ARENA:
                    assert not overlap(made, placed.offsets, name, other)
    for name, offset in placed.offsets.items():
        assert offset % 64 == 0
        assert offset + made.buffer_table[name].bytes <= placed.bytes


def overlap(made: Plan, offsets: Any, one: str, other: str) -> bool:
    sizes = {name: made.buffer_table[name].bytes for name in (one, other)}
    return (
        offsets[one] < offsets[other] + sizes[other] and offsets[other] < offsets[one] + sizes[one]
    )
