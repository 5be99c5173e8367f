"""llama.cpp itself, where the bench extra is installed."""

import numpy as np
import pytest

from nybble.tools.bench.data import make_sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.options import Shape
from nybble.tools.bench.peers import libraries
from nybble.tools.bench.peers.ggml_graph import type_number
from nybble.tools.bench.peers.ggml_matmul import PLAIN, GgmlMatmul, Product, holds
from nybble.tools.bench.peers.llama import LlamaCpp
from nybble.tools.bench.rounds import Rotation

SHAPE = Shape(128, 256)


@pytest.fixture
def installed():
    pytest.importorskip("llama_cpp")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    def refuse(_name):
        raise ModuleNotFoundError("No module named 'llama_cpp'")

    libraries.llama.cache_clear()
    monkeypatch.setattr(libraries, "import_module", refuse)
    with pytest.raises(UnavailableError, match=r"not installed.*nybble\[bench\]"):
        libraries.llama()


def test_types_that_ggml_lacks():
    assert type_number("q4_0") == 2
    with pytest.raises(UnavailableError, match="no type w4g128"):
        type_number("w4g128")


@pytest.mark.parametrize("spec", ["q4_0", "q4_1", "q8_0"])
@pytest.mark.parametrize("n", [1, 5])
def test_products_agree_with_our_reading_of_the_format(installed, spec, n):
    sample = make_sample(spec, SHAPE, n)
    product = GgmlMatmul(Product(spec, sample.raw, sample.x, copies=2, repeats=2))
    assert product.seconds() > 0
    assert sample.nmse(product.result()) < 1e-3
    product.close()


def test_what_a_buffer_type_holds(installed):
    assert holds(PLAIN, "q4_0", 64, 64)
    for name in libraries.extra_buffer_types():
        assert not holds(name, "f32", 64, 64)


def test_variants_run_on_the_thread_of_the_peer(installed):
    sample = make_sample("q4_0", SHAPE, 2)
    notes = []
    runners = LlamaCpp().kernels(sample, 1, Rotation(), notes.append)
    assert PLAIN in runners
    for runner in runners.values():
        assert runner.seconds() > 0
        assert np.isfinite(runner.result()).all()
        runner.close()
