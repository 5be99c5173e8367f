"""Parameters as compiled code wants them: steps first, then the one rounding."""

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.steps import (
    HadamardStep,
    OnesStep,
    PlusOneStep,
    ScaleStep,
    UnscaleStep,
    prepared,
)
from nybble.dialects.numpy_ref.hadamard import hadamard
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.checkpoint import TensorEntry
from nybble.frontend.graph import Argument, Dimensions, ModelGraph, Role
from nybble.frontend.prepare import Preparer, check_rounded, recipes_of

UP, NORM = "model.layers.1.mlp.up_proj.weight", "model.layers.1.norm.weight"
ROTATE = (ScaleStep.get("columns", "model.layers.{layer}.norm.weight"),)
ROTATE += (HadamardStep.get("columns", 32), UnscaleStep.get("rows", "smooth.{layer}.down"))


def entry(name, values, spec="f32", original=None):
    form = formats.get(spec)
    raw = form.pack(form.quantize(values.reshape(-1, values.shape[-1])))
    return TensorEntry(name, spec, values.shape, name, lambda: raw, original)


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 64), np.float32), rng.standard_normal(64, np.float32)


def test_steps_come_before_the_rounding(numbers):
    values, norm = numbers
    original = entry(UP, values, "f32")
    rounded = entry(UP, values, "w2g32", original)
    factors = np.arange(1, 9, dtype=np.float32)
    preparer = Preparer({UP: rounded, NORM: entry(NORM, norm)}, {"smooth.1.down": factors})
    want = hadamard(values.astype(np.float64) * norm, 32) / factors[:, None]
    np.testing.assert_allclose(preparer.values(UP, ROTATE, 1), want, rtol=1e-6)
    form = formats.get("w2g32")
    again = form.unpack(preparer.raw(UP, ROTATE, 1), 64).dequantize()
    np.testing.assert_array_equal(again, form.quantize(want.astype(np.float32)).dequantize())


def test_steps_of_vectors_and_of_rows(numbers):
    values, norm = numbers
    nothing = {}.__getitem__
    np.testing.assert_array_equal(prepared((OnesStep(),), norm, nothing), np.ones(64))
    np.testing.assert_array_equal(prepared((PlusOneStep(),), norm, nothing), norm + np.float32(1))
    rows = prepared((HadamardStep.get("rows", 4),), values, nothing)
    np.testing.assert_allclose(rows.T, hadamard(values.T, 4), rtol=1e-6)
    again = prepared((HadamardStep.get("rows", 4),), rows, nothing)
    np.testing.assert_allclose(again, values, atol=1e-6)


def graph():
    weight = Argument("up", Role.WEIGHT, "model.layers.{layer}.mlp.up_proj.weight")
    return ModelGraph(
        "llama", Dimensions(2, 64, 1, 1, 64, 8, 8, "f32"), "", {"e": (), "l": (weight,), "h": ()},
        "e", ("l", "l"), "h", {},
    )  # fmt: skip


def test_a_rounded_weight_that_changes_needs_a_format(numbers):
    values, _ = numbers
    recipes = {("l", "up"): ROTATE}
    name = UP.replace("1", "0")
    kept = {UP: entry(UP, values, "q8_0"), name: entry(name, values, "f16")}
    with pytest.raises(NybbleError, match=rf"'{UP}' is changed by --rotate .* of 'q8_0'"):
        check_rounded(graph(), recipes, kept)
    check_rounded(graph(), {}, kept)
    asked = {**kept, UP: entry(UP, values, "q8_0", kept[UP])}
    check_rounded(graph(), recipes, asked)


def test_recipes_are_read_from_the_arguments():
    text = """
func.func @l(%x: tensor<?x64xf32>, %w: tensor<64xf32> {nybble.name = "up",
    nybble.prepare = [#lowbit.hadamard<rows, 8>, #lowbit.ones]}) {
  func.return
}
"""
    module = parse_module(make_context(), text, "l.mlir")
    assert recipes_of(module) == {("l", "up"): (HadamardStep.get("rows", 8), OnesStep())}
