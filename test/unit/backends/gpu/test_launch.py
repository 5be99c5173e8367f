"""Launches: what the driver is given, and arguments that are refused before it is asked."""

import ctypes
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from nybble.backends.gpu import launch
from nybble.backends.gpu.arrays import DeviceArray, device_array
from nybble.backends.gpu.driver import Driver, GpuError
from nybble.backends.gpu.image import Access, Boxes, KernelImage, Parameter
from nybble.backends.gpu.launch import Kernel, TensorMap

PARAMETERS = (
    Parameter("x", "f16", Access.READ, 32),
    Parameter("n", "i32", Access.VALUE),
    Parameter("scale", "f32", Access.VALUE),
    Parameter("out", "f32", Access.UPDATE, 64),
)
IMAGE = KernelImage("k", "sm_90a", "", PARAMETERS, (7, 2, 1), (128, 1, 1), zeroed=("out",))
X = DeviceArray(4096, "f16", 32, 0)
OUT = DeviceArray(8192, "f32", 64, 0)
OUT_CELL = ctypes.c_void_p(0)


class OnGpu:
    """A numpy array that claims to lie on a GPU."""

    def __init__(self, array, device=(2, 0)):
        self._array, self._device = array, device

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, *, stream):
        assert stream == -1  # asking for more would wait, which a captured launch may not
        return self._array.__dlpack__()


def kernel(api, image=IMAGE):
    return Kernel(image, driver=Driver(api))


def test_gives_the_driver_grid_block_stream_and_arguments(fake_driver):
    api = fake_driver()
    kernel(api).on(77, {"x": X, "n": -3, "scale": 0.5, "out": OUT})
    ((config, function, _),) = api.launches
    assert function == "function"
    assert [config[f"gridDim{axis}"] for axis in "XYZ"] == [7, 2, 1]
    assert [config[f"blockDim{axis}"] for axis in "XYZ"] == [128, 1, 1]
    assert (config["hStream"], config["sharedMemBytes"]) == (77, 0)
    assert "attrs" not in config


def test_arguments_lie_behind_pointers_while_the_driver_reads_them(fake_driver):
    seen = []

    class Reading(fake_driver):
        def cuLaunchKernelEx(self, config, function, pointers, extra):
            kinds = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_float, ctypes.c_void_p)
            seen.append(fake_driver.words(pointers, *kinds))
            return (0,)

    kernel(Reading()).on(0, {"x": X, "n": -3, "scale": 0.5, "out": OUT})
    assert seen == [[4096, -3, 0.5, 8192]]


def test_fills_what_must_be_zero_on_the_same_stream_before_the_launch(fake_driver):
    api = fake_driver()
    kernel(api)(X, 1, 1.0, OUT)
    assert api.names()[-2:] == ["cuMemsetD8Async", "cuLaunchKernelEx"]
    assert api.calls[-2][1:] == (8192, 0, 64, 0)


def test_leaves_zeros_to_a_caller_who_keeps_them(fake_driver):
    api = fake_driver()
    Kernel(IMAGE, driver=Driver(api), clear=False)(X, 1, 1.0, OUT)
    assert "cuMemsetD8Async" not in api.names()


def test_launches_clusters(fake_driver):
    api = fake_driver()
    wide = dataclasses.replace(IMAGE, cluster=(2, 1, 1))
    kernel(api, wide)(X, 1, 1.0, OUT)
    (attribute,) = api.launches[0][0]["attrs"]
    assert vars(attribute.value.clusterDim) == {"x": 2, "y": 1, "z": 1}
    assert attribute.id == "CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": dataclasses.replace(X, bytes=30)}, r"'x' has 30 bytes \(accepted: at least 32"),
        ({"x": dataclasses.replace(X, dtype="bf16")}, r"'x' has elements bf16 \(accepted: f16"),
        ({"x": dataclasses.replace(X, device=1)}, r"'x' is on GPU 1 \(accepted: GPU 0"),
        ({"x": 3}, r"'x' is a int \(accepted: an array on a GPU"),
        ({"x": TensorMap(X, "f16", (8,), (), (8,))}, r"'x' is a TensorMap \(accepted: f16"),
        ({"n": "3"}, r"'n' is a str \(accepted: i32"),
        ({"n": None, "missing": "n"}, r"'k' lacks argument 'n'"),
    ],
)
def test_refuses_arguments(fake_driver, change, said):
    arguments = {"x": X, "n": 1, "scale": 1.0, "out": OUT, **change}
    arguments.pop(arguments.pop("missing", ""), None)
    api = fake_driver()
    with pytest.raises(GpuError, match=said):
        kernel(api).on(0, arguments)
    assert api.launches == []


def test_refuses_a_wrong_number_of_arguments(fake_driver):
    with pytest.raises(GpuError, match=r"got 1 arguments \(accepted: 4: x, n, scale, out"):
        kernel(fake_driver())(X)


def test_bytes_and_integers_of_a_width_fit(fake_driver):
    packed = Parameter("w", "i32", Access.READ, 16)
    image = dataclasses.replace(IMAGE, parameters=(packed,), zeroed=())
    for dtype in ("i32", "u32", "u8"):
        kernel(fake_driver(), image)(DeviceArray(64, dtype, 16, 0))
    for dtype in ("i64", "f32"):
        with pytest.raises(GpuError, match=f"elements {dtype}"):
            kernel(fake_driver(), image)(DeviceArray(64, dtype, 16, 0))


@pytest.mark.parametrize("dtype", ["float16", "int32", "uint8", "float32"])
def test_finds_arrays_by_dlpack_and_by_the_cuda_interface(dtype):
    host = np.zeros((3, 4), dtype)[1:]
    interface = SimpleNamespace(__cuda_array_interface__=host.__array_interface__)
    found = device_array("x", OnGpu(host))
    assert found == device_array("x", interface)
    assert (found.address, found.bytes) == (host.ctypes.data, host.nbytes)
    assert found.dtype == f"{'f' if host.dtype.kind == 'f' else host.dtype.kind}{8 * host.itemsize}"


def test_refuses_arrays_with_gaps_and_arrays_of_the_host():
    gaps = np.zeros((4, 4), np.float32)[:, ::2]
    with pytest.raises(GpuError, match=r"'x' has strides \[4, 2\] for shape \[4, 2\]"):
        device_array("x", OnGpu(gaps))
    interface = SimpleNamespace(__cuda_array_interface__=gaps.__array_interface__)
    with pytest.raises(GpuError, match=r"'x' has strides \[4, 2\]"):
        device_array("x", interface)
    with pytest.raises(GpuError, match=r"'x' is not in the memory of a GPU"):
        device_array("x", OnGpu(np.zeros(4), (1, 0)))


def test_takes_the_stream_of_the_library_of_the_arrays(monkeypatch):
    torch = SimpleNamespace(
        cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=11))
    )
    cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=22)))
    for name, module in (("torch", torch), ("cupy", cupy)):
        monkeypatch.setitem(launch.sys.modules, name, module)

    def array(module):
        return type("Array", (), {"__module__": module, "device": "cuda:0"})()

    assert launch.current_stream([3, array("torch")]) == 11
    assert launch.current_stream([array("cupy.core")]) == 22
    assert launch.current_stream([TensorMap(array("torch"), "f16", (8,), (), (8,))]) == 11
    assert launch.current_stream([3, X]) == 0


def test_a_buffer_becomes_the_tensor_map_of_its_boxes(fake_driver, monkeypatch):
    boxes = Boxes((8, 2), (8, 8), 16)
    image = dataclasses.replace(
        IMAGE, parameters=(dataclasses.replace(PARAMETERS[0], boxes=boxes),), zeroed=()
    )
    seen = []
    monkeypatch.setattr(launch, "encode", lambda name, wanted: seen.append(wanted) or OUT_CELL)
    kernel(fake_driver(), image).on(0, {"x": X})
    assert seen == [TensorMap(X, "f16", (8, 2), (16,), (8, 8), 16)]


def test_encodes_an_aligned_tensor_map():
    seen = {}

    def encoder(target, kind, rank, address, dims, strides, box, steps, *rest):
        seen.update(
            at=ctypes.addressof(target._obj),
            kind=kind.value,
            address=address.value,
            dims=[*dims],
            strides=[*strides],
            box=[*box],
            steps=[*steps],
            rest=[one.value for one in rest],
        )
        return 0

    wanted = TensorMap(X, "bf16", (64, 8), (128,), (64, 8), swizzle=128)
    made = launch.encode("a", wanted, encoder)
    assert ctypes.sizeof(made) == 128
    assert seen.pop("at") % 64 == 0
    assert seen == {
        "kind": 9,
        "address": 4096,
        "dims": [64, 8],
        "strides": [128],
        "box": [64, 8],
        "steps": [1, 1],
        "rest": [0, 3, 3, 0],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "s4"}, r"'a' has elements s4 and swizzle 0 \(accepted: u8, "),
        ({"swizzle": 48}, r"swizzle 48"),
        ({"strides": ()}, r"of rank 2 has 0 strides and a box of 2 \(accepted: 1 strides"),
        ({}, r"'a' was refused by the driver with code 1: dims \(64, 8\)"),
    ],
)
def test_refuses_tensor_maps(change, said):
    wanted = TensorMap(X, "f16", (64, 8), (128,), (64, 8))
    with pytest.raises(GpuError, match=said):
        launch.encode("a", dataclasses.replace(wanted, **change), lambda *_: 1)
