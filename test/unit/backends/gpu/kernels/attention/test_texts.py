"""Tokens of several texts over the keys that they share: each as if it were alone."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.attention.decode import decode_image
from nybble.backends.gpu.sim.simulate import simulate

CASES = [
    # texts that fill a block or not, several blocks, shares of keys, codes, lists
    (3, {"group": 4}), (5, {"group": 4, "splits": 2}), (7, {"group": 5, "kv_heads": 2}),
    (20, {"group": 1, "cache": "kv4"}), (4, {"group": 16, "cache": "kv8(32)", "splits": 2}),
    (6, {"group": 2, "cache": "kv2", "softmax": "unified"}), (3, {"cache": "bf16", "group": 2}),
    (3, {"group": 4, "block": 64, "splits": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "changes"), CASES)
@pytest.mark.parametrize("part", [False, True])
def test_each_text_is_as_if_alone(problem, decode_spec, texts, changes, part):
    made = {"sequences": 1, "context": 256, "part": part} | changes
    alone = problem(decode_spec(**made), (200,))
    spec = replace(alone.spec, texts=texts)
    random, width = np.random.default_rng(texts), spec.kv_heads * spec.group
    bits = alone.stored(random.standard_normal((texts, width, spec.head_dim)))[1]
    together = run(spec, alone.arguments | {"q": bits})
    names = ("max", "sum", "acc") if part else ("out",)
    for text in range(texts):
        single = run(alone.spec, alone.arguments | {"q": bits[text]})
        for name in names:
            found = together[name].reshape(texts, -1)[text]
            np.testing.assert_array_equal(found, single[name].reshape(-1), f"{name} of {text}")


def run(spec, arguments):
    """The buffers after a launch; all that is written is new."""
    image = decode_image(spec, find_arch("sm_90a"))
    given = {}
    for one in image.parameters:
        dtype = {"f32": np.float32, "i32": np.int32}.get(one.dtype, np.uint16)
        if one.name in arguments and one.name not in ("out", "partial", "statistics", "counters"):
            given[one.name] = arguments[one.name]
        elif one.name == "counters":
            given[one.name] = np.zeros(one.bytes // 4, np.int32)
        else:
            given[one.name] = np.full(one.bytes // np.dtype(dtype).itemsize, 0x7F, dtype)
    report = simulate(image, given)
    report.check()
    assert report.bank_conflicts == 0
    if spec.splits > 1:
        assert not given["counters"].any()
    return given


def test_keys_are_read_once_for_the_texts_of_a_block(problem, decode_spec):
    one = problem(decode_spec(sequences=1, group=4), (128,))
    read = []
    for texts in (1, 4):
        spec = replace(one.spec, texts=texts)
        assert spec.jobs == 1
        q = np.zeros((texts, spec.group, spec.head_dim), np.uint16)
        image = decode_image(spec, find_arch("sm_90a"))
        given = {p.name: one.arguments.get(p.name) for p in image.parameters}
        given |= {"q": q, "out": np.zeros_like(q)}
        report = simulate(image, given)
        read.append(sum(row.taken for row in report.globals))
    few, many = read
    assert many < 1.5 * few, "four times the queries and results, the same keys"
