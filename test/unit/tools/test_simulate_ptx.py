"""nybble run --sim: arguments as a person spells them, and what comes of a kernel."""

import json

import numpy as np
import pytest

from nybble.backends.gpu.sim.simulate import Launch
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.ptx_arguments import parse_argument
from nybble.tools.simulate_ptx import PtxRun, run_ptx
from nybble.tools.verbs.run import extent

KERNEL = """.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 x, .param .u64 y, .param .f32 factor, .param .u32 n) {
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .f32 %f<4>; .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [x];
  ld.param.u64 %rd2, [y];
  ld.param.f32 %f1, [factor];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.u32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 ret;
  mad.wide.u32 %rd3, %r5, 4, %rd1;
  mad.wide.u32 %rd4, %r5, 4, %rd2;
  ld.global.f32 %f2, [%rd3];
  mul.f32 %f3, %f2, %f1;
  st.global.f32 [%rd4], %f3;
  ret;
}
"""


def argument(text):
    return parse_argument(text, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "value"),
    [("64", 64), ("-3", -3), ("0x40", 64), ("1.5", 1.5), ("1e-3", 1e-3), ("nan", np.nan)],
)
def test_numbers(text, value):
    found = argument(text).value
    assert type(found) is type(value)
    assert found == value or value != value


def test_buffers():
    assert argument("f32:3x4=zeros").array.shape == (3, 4)
    assert argument("i8:8").array.dtype == np.int8
    assert (argument("u8:4=arange").array == [0, 1, 2, 3]).all()
    assert (argument("f16:4=-2.5").array == -2.5).all()
    assert argument("f32:5").array.tolist() == argument("f32:5=random").array.tolist()
    bits = argument("bf16:64")
    assert bits.array.dtype == np.uint16
    assert 0.3 < bits.values().std() < 3
    assert argument("e4m3:64").array.max() < 0x48


def test_buffer_from_a_file(tmp_path):
    given = np.arange(6, dtype=np.int16).reshape(2, 3).T
    np.save(tmp_path / "x.npy", given)
    found = argument(str(tmp_path / "x.npy")).array
    assert (found == given).all()
    assert found.flags.c_contiguous
    (tmp_path / "bad.npy").write_text("text")
    with pytest.raises(UsageError, match="is no array"):
        argument(str(tmp_path / "bad.npy"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("banana", "'banana' is no argument of a kernel"),
        ("f33:4", "'f33:4' has an unknown type"),
        ("f32:4=ones", "has an unknown content"),
        ("f32:99999x99999", "is too large"),
    ],
)
def test_arguments_that_are_none(text, message):
    with pytest.raises(UsageError, match=message):
        argument(text)


def test_extents():
    assert extent(None) == (1, 1, 1)
    assert extent("4x2") == (4, 2, 1)
    for wrong in ("4y", "1x1x1x1", ""):
        with pytest.raises(UsageError, match="is no extent"):
            extent(wrong or "x")


@pytest.fixture
def kernel(tmp_path):
    path = tmp_path / "scale.ptx"
    path.write_text(KERNEL)
    return str(path)


def run(path, *arguments, grid=2, block=32, **more):
    launch = Launch((grid, 1, 1), (block, 1, 1))
    return run_ptx(path, PtxRun(None, arguments, launch, 0, **more), Session("nybble"))


def test_kernel_of_a_file(kernel, tmp_path):
    result = run(kernel, "f32:40=arange", "f32:40=zeros", "2.0", "40", save=str(tmp_path / "out"))
    assert "y: f32:40=zeros: 0 2 4 6 8 10 .." in result.text(details=False)
    assert "global memory:" in result.text(details=True)
    assert np.load(tmp_path / "out" / "y.npy").tolist() == [2.0 * i for i in range(40)]
    report = json.loads(json.dumps(result.as_json()))
    assert report["agrees"]
    assert report["buffers"]["y"]["mean"] == 39.0
    assert report["kernel"] == "scale"


def test_findings_are_told(kernel):
    result = run(kernel, "f32:40=arange", "f32:20=zeros", "2.0", "40")
    assert "out-of-bounds: a write of 4 bytes at byte 80 of 'y', which has 80" in result.text(
        details=False
    )
    assert not result.as_json()["agrees"]


def test_wrong_number_of_arguments_names_the_parameters(kernel):
    with pytest.raises(UsageError, match="4 parameters, 1 arguments") as raised:
        run(kernel, "f32:4")
    assert raised.value.accepted == ".u64 x, .u64 y, .f32 factor, .u32 n"


def test_file_that_is_no_text(tmp_path):
    path = tmp_path / "x.ptx"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Exception, match="is not text"):
        run(str(path))
