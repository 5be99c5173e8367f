"""Activation quantization, bit for bit against the reference."""

import numpy as np
import pytest

from nybble.backends.cpu.bit_planes import words_of_codes
from nybble.backends.cpu.kernels.bit_rows import PlaneRows, QuantizePlanes, RmsNormQuantizePlanes
from nybble.backends.cpu.kernels.norm import RmsNorm, RmsNormQuantize
from nybble.backends.cpu.kernels.quantize import Quantize
from nybble.dialects.lowbit import formats
from nybble.dialects.numpy_ref.quantize import dequantize_rows, quantize_rows


def check(out, x, group):
    want = quantize_rows(x, group)
    for name, expected in zip("qsz", want, strict=True):
        flat = expected.reshape(-1)
        np.testing.assert_array_equal(out[name][: flat.size], flat, name)


@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows(run, rng, group, threads):
    x = (rng.standard_normal((5, 768)) * 10.0 ** rng.integers(-20, 20, (5, 1))).astype(np.float32)
    check(run(Quantize(768, 20, group), n=5, threads=threads, x=x), x, group)


@pytest.mark.parametrize("threads", [1, 2, 7, 40])
def test_decode(run, rng, threads):
    x = rng.standard_normal((1, 576)).astype(np.float32)
    check(run(Quantize(576, 1), threads=threads, x=x), x, 32)


def test_only_n_rows_are_written(run, rng):
    x = rng.standard_normal((20, 64)).astype(np.float32)
    out = run(Quantize(64, 20), n=3, x=x)
    assert np.all(out["q"][3 * 64 :] == 77)
    assert np.all(np.isnan(out["s"][6:]))


def test_nasty_rows(run):
    x = np.zeros((8, 32), np.float32)
    x[1] = 1e-42  # denormal
    x[2, 3] = -1e-30
    x[3] = np.finfo(np.float32).max
    x[4] = np.arange(32) - 15.5
    x[5] = -0.0
    x[6, 0], x[6, 1:] = 127, np.arange(31) + 0.5  # halves, scale 1
    x[7, 31] = np.nextafter(np.float32(1e-30), np.float32(0))
    check(run(Quantize(32, 8), n=8, x=x), x, 32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_spoils_its_group_alone(run, rng, bad):
    x = rng.standard_normal((1, 96)).astype(np.float32)
    x[0, 40] = bad
    out = run(Quantize(96, 1), x=x)
    want = quantize_rows(x, 32)
    assert not np.isfinite(out["s"][1])
    assert not np.isfinite(want.s[0, 1])
    for group in (0, 2):
        assert out["s"][group] == want.s[0, group]
        assert out["z"][group] == want.z[0, group]


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize(("rows", "n", "threads"), [(1, 1, 1), (1, 1, 4), (9, 9, 2), (33, 31, 2)])
@pytest.mark.parametrize("offset", [False, True])
def test_fused_norm_is_norm_then_quantize(run, rng, group, rows, n, threads, offset):
    x = rng.standard_normal((n, 640)).astype(np.float32) * 3
    w = rng.standard_normal(640).astype(np.float32)
    normed = run(RmsNorm(640, rows, 1e-5, offset=offset), n=n, x=x, w=w)["out"][: x.size]
    fused = RmsNormQuantize(640, rows, 1e-5, group, offset)
    check(run(fused, n=n, threads=threads, x=x, w=w), normed.reshape(n, 640), group)


@pytest.mark.parametrize("rows", [1, 5])
def test_two_digits(run, rng, rows):
    x = rng.standard_normal((rows, 128)).astype(np.float32) * 7
    x[0, :32] = 0
    kernel = Quantize(128, rows, 64, digits=2)
    out, want = run(kernel, n=rows, x=x), quantize_rows(x, 64, digits=2)
    planes = out["q"].reshape(2, -1)[:, : x.size].reshape(2, rows, 128)
    np.testing.assert_array_equal(planes, want.q)
    np.testing.assert_array_equal(out["s"][: want.s.size], want.s.reshape(-1))
    np.testing.assert_array_equal(out["z"][: want.z.size], want.z.reshape(-1))
    step = np.repeat(want.s, 64, axis=1)
    assert np.all(np.abs(dequantize_rows(want.q, want.s) - x) <= 0.51 * step)


def test_the_low_digit_always_fits():
    x = np.arange(-32512, 32513, dtype=np.float32)
    x = np.concatenate([x, np.zeros(-len(x) % 32, np.float32)])[None]
    x[0, ::32] = 32512
    codes = quantize_rows(x, 32, digits=2).q
    np.testing.assert_array_equal(256 * codes[0].astype(int) + codes[1], x)


def test_three_digits_are_refused():
    with pytest.raises(ValueError, match="3 digits are none of 1, 2"):
        Quantize(64, 1, digits=3).build("kernel")


def test_dequantized_error_is_half_a_step(run, rng):
    x = rng.standard_normal((4, 256)).astype(np.float32)
    out = run(Quantize(256, 4, 64), n=4, x=x)
    codes, scale = out["q"][: 4 * 256].reshape(4, 256), out["s"][: 4 * 4].reshape(4, 4)
    step = np.repeat(scale, 64, axis=1)
    assert np.all(np.abs(dequantize_rows(codes, scale) - x) <= 0.501 * step)


@pytest.mark.parametrize(
    ("width", "group", "fault"), [(100, 32, "row length 100"), (96, 48, "group size 48")]
)
def test_shapes_that_do_not_fit(width, group, fault):
    with pytest.raises(ValueError, match=fault):
        Quantize(width, 1, group).build("kernel")


def test_reference_rejects_a_partial_group():
    with pytest.raises(ValueError, match="row length 33 is not a multiple of the group size 32"):
        quantize_rows(np.zeros((1, 33), np.float32), 32)


def check_planes(out, x, bits, group):
    """Codes are those of the format's quantizer; a mean is summed in another order."""
    want = formats.get(f"ab{bits}g{group}").quantize(x)
    words = words_of_codes(want.codes, bits, group).reshape(-1).view(np.int32)
    np.testing.assert_array_equal(out["q"][: words.size], words)
    scale = want.scale.reshape(-1)
    np.testing.assert_allclose(out["s"][: scale.size], scale, rtol=1e-6 if bits == 1 else 0)
    bipolar = 2 * want.codes.astype(int) - (2**bits - 1)
    sums = bipolar.reshape(-1, group).sum(axis=1)
    np.testing.assert_array_equal(out["z"][: sums.size], sums)


@pytest.mark.parametrize(
    ("bits", "width", "group", "rows"),
    [(1, 256, 128, 1), (1, 100, 100, 3), (2, 192, 64, 5), (3, 21, 7, 2), (4, 96, 48, 1)],
)
def test_bit_planes(run, rng, bits, width, group, rows):
    kernel = QuantizePlanes(PlaneRows(width, rows, group, bits))
    x = rng.standard_normal((rows, width)) * 10.0 ** rng.integers(-15, 15, (rows, 1))
    ties = rng.integers(-(2**bits), 2**bits + 1, (rows, width))
    ties[0, :group] = 0
    for values in (x.astype(np.float32), ties.astype(np.float32)):
        check_planes(run(kernel, n=rows, threads=2, x=values), values, bits, group)


def test_bit_planes_of_a_norm(run, rng):
    x = rng.standard_normal((3, 160)).astype(np.float32) * 3
    w = rng.standard_normal(160).astype(np.float32)
    normed = run(RmsNorm(160, 3, 1e-5, lanes=8), n=3, x=x, w=w)["out"][: x.size]
    out = run(RmsNormQuantizePlanes(PlaneRows(160, 3, 80, 2), 1e-5), n=3, threads=2, x=x, w=w)
    check_planes(out, normed.reshape(3, 160), 2, 80)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bits", [1, 2])
def test_a_number_that_is_not_finite_spoils_its_group_of_planes_alone(run, rng, bad, bits):
    x = rng.standard_normal((1, 96)).astype(np.float32)
    x[0, 40] = bad
    scale = run(QuantizePlanes(PlaneRows(96, 1, 32, bits)), x=x)["s"]
    assert list(np.isfinite(scale)) == [True, False, True]


@pytest.mark.parametrize(
    ("width", "group", "bits", "fault"),
    [(100, 64, 1, "row length 100 is not a multiple"), (64, 64, 9, "9 bits are not of 1 to 8")],
)
def test_planes_that_do_not_exist(width, group, bits, fault):
    with pytest.raises(ValueError, match=fault):
        PlaneRows(width, 1, group, bits)
