"""Peers that take part in kernel measurements alone compute what the sample says."""

import pytest

from nybble.tools.bench.data import make_sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.options import Shape
from nybble.tools.bench.peers import api
from nybble.tools.bench.peers.optional import package
from nybble.tools.bench.rounds import Rotation

SHAPE = Shape(64, 256)
NEEDS = {
    "int_dot": (), "onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino",),
    "torch": ("torch",),
}  # fmt: skip
EIGHT_BITS = 2e-4  # normalized mean square error of a product of 8-bit activations
FOUND = [
    ("int_dot", "w1g128", {"i8-only"}),
    ("onnxruntime", "q4_0", {"int8", "f32"}),
    ("onnxruntime", "q4_1", {"int8", "f32"}),
    ("onnxruntime", "w2g128", {"int8", "f32", "int8 lut", "f32 lut"}),
    ("openvino", "q4_0", {"f32", "f32 int8"}),
    ("openvino", "w2g128", {"f32", "f32 int8"}),
    ("torch", "q4_0", {"bf16", "int8", "int4pack"}),
    ("torch", "nf4", {"bf16", "int8"}),
]


def peer(name):
    for module in NEEDS[name]:
        pytest.importorskip(module)
    return api.REGISTRY.load(name)()


@pytest.mark.parametrize(("name", "spec", "variants"), FOUND)
@pytest.mark.parametrize("n", [1, 18])
def test_variants_multiply(name, spec, variants, n):
    one, sample = peer(name), make_sample(spec, SHAPE, n)
    runners = one.kernels(sample, 1, Rotation(copies=2, repeats=2), lambda _: None)
    assert set(runners) >= variants
    for runner in runners.values():
        assert runner.seconds() > 0
        assert sample.nmse(runner.result()) < EIGHT_BITS
        runner.close()


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("int_dot", "nf4", "int_dot"),
        ("onnxruntime", "nf4", "not on a line"),
        ("onnxruntime", "u4:g=24:s=f16", "no blocks of 24"),
        ("openvino", "q4_1", "zero points that are codes"),
    ],
)
def test_formats_that_a_peer_does_not_take(name, spec, message):
    sample = make_sample(spec, Shape(8, 768), 1)
    with pytest.raises(UnavailableError, match=message):
        peer(name).kernels(sample, 1, Rotation(), lambda _: None)


def test_a_variant_that_fails_is_noted():
    notes = []
    runners = peer("torch").kernels(make_sample("q8_0", SHAPE, 1), 1, Rotation(), notes.append)
    assert set(runners) == {"bf16", "int8"}
    assert any("int4pack" in note and "8 bits" in note for note in notes)


@pytest.mark.parametrize("name", [*NEEDS])
def test_they_run_no_models(name, tmp_path):
    with pytest.raises(UnavailableError, match="runs no GGUF models"):
        api.REGISTRY.load(name)().model(tmp_path, lambda _: None)


def test_a_missing_package_is_told():
    with pytest.raises(UnavailableError, match="X is not installed") as told:
        package("no_such_module_here", "X")
    assert told.value.accepted == "pip install 'nybble[bench]'"
