"""Schedules that were chosen before: applied where they fit, else named and left out."""

import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.schedule_space import ScheduleError
from nybble.costmodel.data.schedules import Entry
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.apply_schedules import apply_schedules, kernel_key
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.targets import load_target

TEXT = """
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %r = fused.rms_norm %x, %g eps 1.0e-05 : tensor<1x64xf32>, tensor<64xf32> -> tensor<1x64xf32>
  func.return %r : tensor<1x64xf32>
}
"""
CPU = load_target("cpu")


def scheduled() -> tuple[ModuleOp, KernelOp]:
    """A module with one norm, and the norm."""
    module = parse_module(make_context(), TEXT, "<test>")
    run_passes(make_context(), module, build_pipeline("fuse-kernels,schedule-kernels"))
    (kernel,) = [op for op in module.walk() if isinstance(op, KernelOp)]
    return module, kernel


def apply(entry: Entry, key: str | None = None) -> tuple[int, list[str], KernelOp]:
    """What became of an entry."""
    module, kernel = scheduled()
    done = apply_schedules(module, {key or kernel_key(kernel): entry}, CPU, "x86-64-v3", 1)
    return done.count, done.warnings, kernel


def test_an_entry_is_applied():
    count, warnings, kernel = apply(Entry("norm", "vector", {"lanes": 16, "chains": 2}, "tuned"))
    assert (count, warnings) == (1, [])
    assert kernel.schedule is not None
    assert kernel.schedule.sizes() == {"chains": 2, "lanes": 16, "tokens": 1}
    assert kernel.schedule.because.data == "no matrix product; tuned"
    assert kernel_key(kernel) == kernel_key(scheduled()[1])


def test_a_stale_entry_warns_and_is_not_applied():
    count, warnings, kernel = apply(Entry("norm", "vector", {"lanes": 7}, "tuned"))
    assert count == 0
    assert warnings == [
        'the schedule of kernel "norm" is stale and not applied: size lanes = 7 '
        "(f32 lanes of a vector)"
    ]
    assert kernel.schedule is not None
    assert kernel.schedule.sizes() == {"tokens": 1}


def test_an_entry_of_another_kernel_is_left_alone():
    assert apply(Entry("norm", "vector", {"lanes": 16}, ""), key="0" * 32)[:2] == (0, [])


@pytest.mark.parametrize("sizes", [{"lanes": 7}, {"depth": 1}])
def test_the_lowering_refuses_what_is_illegal(sizes: dict[str, int]):
    module, kernel = scheduled()
    assert kernel.schedule is not None
    kernel.schedule = type(kernel.schedule).get("cpu", "vector", {"tokens": 1, **sizes}, "")
    with pytest.raises(NybbleError) as caught:
        run_passes(make_context(), module, build_pipeline("lower-kernels-to-cpu{isa=x86-64-v3}"))
    assert caught.value.accepted is not None
    assert issubclass(ScheduleError, NybbleError)
