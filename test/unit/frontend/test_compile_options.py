"""What the options of a compilation become as options of passes."""

import pytest

from nybble.frontend.compile_model import CompileOptions


@pytest.mark.parametrize(
    ("activations", "isa", "decode", "prefill"),
    [
        ("i8", "amx", "i16", "bf16"),
        ("i8", "avx512-vnni", "i16", "i16"),
        ("i8-only", "amx", "i8", "i8"),
        ("i8-only", "x86-64-v3", "i8", "i8"),
        ("i16", "amx", "i16", "i16"),
        ("f32", "amx", "f32", "f32"),
    ],
)
def test_dataflow_of_a_mode(activations, isa, decode, prefill):
    options = CompileOptions(activations, isa=isa).pass_options()
    assert (options["activations"], options["prefill"]) == (decode, prefill)


def test_a_chunk_fits_the_context():
    assert CompileOptions(context=100, chunk=512, isa="amx").pass_options()["chunk"] == 100
