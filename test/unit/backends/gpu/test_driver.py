"""The driver: what is missing or refused is an error with a remedy; kernels are loaded."""

import dataclasses
import importlib

import pytest

from nybble.backends.gpu import driver as gpu
from nybble.backends.gpu.image import KernelImage

PTX = ".version 8.7\n.target sm_90a\n"
IMAGE = KernelImage("k", "sm_90a", PTX, (), (1, 1, 1), (128, 1, 1))


def load(api, image=IMAGE, code=None):
    started = gpu.Driver(api)
    return started.load(image, started.device(), code)


def test_says_what_a_device_is(fake_driver):
    device = gpu.Driver(fake_driver()).device()
    assert device == gpu.Device(0, "NVIDIA H100", (9, 0), 132, 232448, 50 << 20)
    assert device.arch == "sm_90"


def test_loads_ptx_with_its_end_marked_and_a_cubin_as_it_is(fake_driver):
    for code, sent in ((None, PTX.encode() + b"\0"), (b"\x7fELF", b"\x7fELF")):
        api = fake_driver()
        assert load(api, code=code) == gpu.Loaded("function", 40, 0, 1024)
        (call,) = [one for one in api.calls if one[0] == "cuModuleLoadDataEx"]
        assert call[1] == sent


@pytest.mark.parametrize(("shared", "asked"), [(49152, False), (49153, True)])
def test_asks_for_more_shared_memory_than_48_kib(fake_driver, shared, asked):
    api = fake_driver()
    loaded = load(api, dataclasses.replace(IMAGE, shared=shared))
    assert loaded.shared == 1024 + shared
    assert ("cuFuncSetAttribute" in api.names()) is asked


def test_refuses_more_shared_memory_than_there_is(fake_driver):
    with pytest.raises(gpu.GpuError, match=r"needs 232449 bytes.*at most 232448.*NVIDIA H100"):
        load(fake_driver(), dataclasses.replace(IMAGE, shared=232449))


@pytest.mark.parametrize(
    ("arch", "capability", "runs"),
    [
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_80", (9, 0), True),
        ("sm_80", (8, 9), True),
        ("sm_89", (8, 6), False),
        ("sm_120a", (12, 0), True),
        ("sm_100f", (10, 3), True),
        ("sm_100f", (12, 0), False),
    ],
)
def test_code_runs_on_the_devices_it_is_for(fake_driver, arch, capability, runs):
    device = dataclasses.replace(gpu.Driver(fake_driver()).device(), capability=capability)
    image = dataclasses.replace(IMAGE, arch=arch)
    if runs:
        gpu.check_arch(image, device)
        return
    with pytest.raises(gpu.GpuError, match=rf"'k' is for {arch}, but NVIDIA H100 is sm_"):
        gpu.check_arch(image, device)


def test_refuses_an_architecture_that_is_none(fake_driver):
    with pytest.raises(gpu.GpuError, match=r"'k' is for 'gfx90a' \(accepted: sm_90a"):
        gpu.check_arch(
            dataclasses.replace(IMAGE, arch="gfx90a"), gpu.Driver(fake_driver()).device()
        )


def test_repeats_the_words_of_the_compiler_in_the_driver(fake_driver):
    refuse = {"cuModuleLoadDataEx": fake_driver.Result.CUDA_ERROR_INVALID_PTX}
    with pytest.raises(gpu.GpuError, match=r"does not load: CUDA_ERROR_INVALID_PTX: line 3; no"):
        load(fake_driver(refuse, log=b"line 3; no such instruction"))


def test_names_both_versions_where_the_driver_is_too_old(fake_driver):
    refuse = {"cuModuleLoadDataEx": fake_driver.Result.CUDA_ERROR_UNSUPPORTED_PTX_VERSION}
    expected = r"made for CUDA 13\.0, is too old for PTX 8\.7.*a cubin made by ptxas for sm_90a"
    with pytest.raises(gpu.GpuError, match=expected):
        load(fake_driver(refuse))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("CUDA_ERROR_NO_DEVICE", r"sees no GPU \(accepted: .*CUDA_VISIBLE_DEVICES"),
        ("CUDA_ERROR_INVALID_DEVICE", r"no GPU of that number"),
        (
            "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            r"does not work: CUDA_ERROR_SYSTEM.*nvidia-driver-580",
        ),
        ("CUDA_ERROR_LAUNCH_FAILED", r"^cuInit failed: CUDA_ERROR_LAUNCH_FAILED$"),
    ],
)
def test_says_what_is_amiss_with_driver_or_device(fake_driver, result, said):
    with pytest.raises(gpu.GpuError, match=said):
        gpu.start(lambda: fake_driver({"cuInit": fake_driver.Result[result]}))


def test_says_where_there_is_no_driver():
    class Absent:
        def cuInit(self, flags):
            raise RuntimeError("Failed to dlopen libcuda.so.1")

    with pytest.raises(gpu.GpuError, match=r"no NVIDIA driver: Failed .* \(accepted: apt "):
        gpu.start(Absent)


def test_says_where_the_bindings_are_missing(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(gpu, "import_module", absent)
    with pytest.raises(gpu.GpuError, match=r"cuda-bindings is not .*pip install 'nybble\[gpu\]'"):
        gpu.bindings()


def test_the_bindings_have_every_name_that_is_used(fake_driver):
    api = pytest.importorskip("cuda.bindings.driver")
    assert importlib.import_module("cuda.bindings.driver") is gpu.bindings()
    fake = fake_driver()
    load(fake, dataclasses.replace(IMAGE, shared=50000))
    assert [name for name in fake.names() if not hasattr(api, name)] == []
    attributes = {**vars(api.CUdevice_attribute), **vars(api.CUfunction_attribute)}
    asked = [call[1] for call in fake.calls if call[0].endswith("GetAttribute")]
    assert len(asked) >= 8
    assert [name for name in asked if name not in attributes] == []


def test_the_missing_library_is_an_error(monkeypatch):
    monkeypatch.setattr(gpu, "LIBRARY", "libabsent.so.1")
    gpu.library.cache_clear()
    with pytest.raises(gpu.GpuError, match=r"no NVIDIA driver: libabsent"):
        gpu.library()
