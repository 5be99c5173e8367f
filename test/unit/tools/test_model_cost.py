"""Whole models on a target: sizes and operations by hand, bounds, sums and monotony."""

import json

import pytest

from nybble.costmodel.targets.reader import find_target
from nybble.frontend.compile_model import CompileOptions
from nybble.tools.model_cost import Model, ModelCost, Serving
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import SHAPES

HIDDEN, INNER, KEYS, VOCABULARY, LAYERS = 4096, 14336, 1024, 128256, 32
BITS = 4.5  # of a weight in q4_0
LAYER = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * INNER
"""Weights of a layer of llama-3-8b: q and o, k and v, gate, up and down."""


@pytest.fixture(scope="module")
def llama():
    shape = SHAPES["llama-3-8b"]
    return Model("llama-3-8b", shape_module(shape, "q4_0", 8192, "f16"), ("layer_0",) * LAYERS)


@pytest.fixture(scope="module")
def ask(llama):
    """A function (target, batch, context, prompt) -> ModelCost."""

    def asked(target="h100", batch=1, context=2048, prompt=2048):
        backend = target.startswith("cpu")
        options = CompileOptions(threads=1, context=context)
        serving = Serving(batch, context, prompt, backend, options)
        return ModelCost(llama, find_target(target), serving)

    return asked


def test_weights_and_cache_by_hand(ask):
    found = ask(batch=3)
    norms = (2 * LAYERS + 1) * HIDDEN * 2
    assert found.weights == (LAYERS * LAYER + 2 * VOCABULARY * HIDDEN) * BITS / 8 + norms
    assert found.cache == 3 * LAYERS * 2 * KEYS * 2048 * 2
    assert found.fits
    assert not ask("u280", batch=64).fits


def test_operations_and_bytes_of_a_layer_by_hand(ask):
    found = ask(context=512, prompt=512)
    of_layers = [line for line in found.decode.lines if line.part == "layer_0"]
    products = sum(line.cost.operations["f16"] for line in of_layers if "product" in line.kernel)
    assert products == 2 * LAYERS * LAYER
    (attention,) = (line for line in of_layers if line.kernel == "attention")
    assert attention.cost.operations["f16"] == LAYERS * 4 * 512 * HIDDEN
    assert attention.cost.special == LAYERS * 512 * 32
    assert attention.cost.read["hbm"] == LAYERS * 2 * KEYS * 512 * 2
    read = sum(line.cost.read["hbm"] for line in of_layers if "product" in line.kernel)
    assert read == LAYERS * LAYER * BITS / 8
    prefill = [line for line in found.prefill.lines if line.part == "layer_0"]
    operations = sum(line.cost.operations["f16"] for line in prefill if "product" in line.kernel)
    assert operations == 512 * products


def test_answers_wait_for_memory_and_prompts_for_arithmetic(ask):
    found = ask()
    assert found.decode.bound == "memory"
    waiting = sum(line.terms["hbm"] for line in found.decode.lines)
    embedding = VOCABULARY * HIDDEN * BITS / 8  # of which a token reads one row
    assert waiting == pytest.approx((found.weights - embedding + found.cache) / 3.35e12, rel=1e-3)
    assert found.prefill.bound == "compute"
    least = 2 * 2048 * LAYERS * LAYER / 989.4e12
    assert least < found.prefill.seconds < 1.5 * least


@pytest.mark.parametrize("target", ["h100", "a100", "u280", "vhk158", "cpu-avx2"])
def test_sums_and_their_report(ask, target):
    found = ask(target, context=64, prompt=48)
    for phase in (found.prefill, found.decode):
        assert phase.seconds == pytest.approx(sum(line.seconds for line in phase.lines))
        assert sum(phase.bounds.values()) == pytest.approx(1)
        for line in phase.lines:
            assert line.seconds >= max(line.terms.values())
    report = json.loads(json.dumps(found.report()))
    assert report["machine"] == target
    assert report["decode"]["seconds"] == found.decode.seconds
    stages = report["prefill"]["stages"]
    assert sum(one["bytes"] for one in stages) == report["prefill"]["bytes"]
    assert {"embed", "layer_0", "head", "sample"} <= {one["part"] for one in stages}
    printed = "\n".join(found.lines())
    assert f"on {target} (" in printed
    assert "prefill of 1 x 48 tokens" in printed
    assert "decode of 1 x 1 token after 63" in printed


def test_more_texts_and_longer_ones_take_longer(ask):
    times = [ask(batch=batch).decode.seconds for batch in (1, 2, 16, 300)]
    assert times == sorted(times)
    assert 300 / times[-1] > 15 / times[0]  # but many at once are cheaper each
    times = [ask(context=context).decode.seconds for context in (64, 512, 8192)]
    assert times == sorted(times)
    times = [ask(prompt=prompt).prefill.seconds for prompt in (1, 16, 500, 2048)]
    assert times == sorted(times)


def test_a_prompt_on_the_cpu_is_read_in_chunks(ask):
    found = ask("cpu-avx2", context=2048, prompt=1100)
    (attention,) = (line for line in found.prefill.lines if line.kernel == "attention")
    assert attention.cost.launches == 3 * LAYERS
    assert attention.cost.special == LAYERS * 32 * 1100 * 1101 // 2
