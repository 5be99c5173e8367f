"""Modules of upstream dialects become object code that loads and computes, or a clear error."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from xdsl.builder import ImplicitBuilder
from xdsl.dialects import arith, func, memref
from xdsl.dialects.builtin import IndexType, MemRefType, ModuleOp, f32

from nybble.backends.cache import Cache
from nybble.backends.cpu import isa
from nybble.backends.cpu.codegen import (
    assemble,
    cache_key,
    compile_module,
    compile_modules,
    jit,
)
from nybble.backends.cpu.elf import ObjectError, symbols
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import AARCH64, Machine, for_level, native, x86_machine
from nybble.backends.llvm import toolchain, workers
from nybble.backends.llvm.toolchain import CodegenError
from nybble.backends.llvm.workers import lower

DOUBLE = """
func.func @double(%a: memref<64xf32>, %b: memref<64xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c16 = arith.constant 16 : index
  scf.for %i = %c0 to %n step %c16 {
    %v = vector.load %a[%i] : memref<64xf32>, vector<16xf32>
    %w = arith.addf %v, %v : vector<16xf32>
    vector.store %w, %b[%i] : memref<64xf32>, vector<16xf32>
  }
  return
}"""

# Tables, a constant pool, and loops that LLVM turns into calls of memset and memcpy.
TABLES = f"""
memref.global "private" constant @table : memref<64xi32> = dense<{[i * i for i in range(64)]}>
func.func @look(%out: memref<64xi32>, %n: index) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = memref.get_global @table : memref<64xi32>
  %odd = arith.constant dense<{list(range(1, 33, 2))}> : vector<16xi32>
  scf.for %i = %c0 to %n step %c1 {{
    %x = memref.load %t[%i] : memref<64xi32>
    memref.store %x, %out[%i] : memref<64xi32>
  }}
  vector.store %odd, %out[%c0] : memref<64xi32>, vector<16xi32>
  return
}}
func.func @clear(%out: memref<64xi32>, %n: index) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  scf.for %i = %c0 to %n step %c1 {{
    memref.store %zero, %out[%i] : memref<64xi32>
  }}
  return
}}"""

VNNI = """
func.func @dot(%a: memref<64xi8>, %b: memref<64xi8>, %c: memref<16xi32>) {
  %c0 = arith.constant 0 : index
  %x = vector.load %a[%c0] : memref<64xi8>, vector<64xi8>
  %y = vector.load %b[%c0] : memref<64xi8>, vector<64xi8>
  %z = vector.load %c[%c0] : memref<16xi32>, vector<16xi32>
  %r = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%z, %x, %y)
    : (vector<16xi32>, vector<64xi8>, vector<64xi8>) -> vector<16xi32>
  vector.store %r, %c[%c0] : memref<16xi32>, vector<16xi32>
  return
}"""

EXP = """
func.func @f(%a: memref<1xf32>) {
  %c0 = arith.constant 0 : index
  %0 = memref.load %a[%c0] : memref<1xf32>
  %1 = math.exp %0 : f32
  memref.store %1, %a[%c0] : memref<1xf32>
  return
}"""


def test_text_runs() -> None:
    library = jit(DOUBLE)
    source, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    library.call("double", source, out, 48)
    assert (out[:48] == 2 * source[:48]).all()
    assert not out[48:].any()


def test_xdsl_module_runs() -> None:
    buffer = MemRefType(f32, [4])
    function = func.FuncOp("copy", ((buffer, buffer, IndexType()), ()))
    with ImplicitBuilder(function.body) as (source, out, index):
        value = memref.LoadOp.get(source, [index])
        total = arith.AddfOp(value.res, value.res)
        memref.StoreOp.get(total.result, out, [index])
        func.ReturnOp()
    out = np.zeros(4, np.float32)
    jit(ModuleOp([function])).call("copy", np.array([1, 2, 3, 4], np.float32), out, 2)
    assert out.tolist() == [0, 0, 6, 0]


def test_tables_constants_and_library_calls() -> None:
    code = compile_module(TABLES)
    assert "memset" in symbols(code).undefined
    library = load([code])
    out = np.full(64, -1, np.int32)
    library.call("look", out, 64)
    assert out.tolist() == [*range(1, 33, 2), *(i * i for i in range(16, 64))]
    library.call("clear", out, 60)
    assert out.tolist() == [0] * 60 + [i * i for i in range(60, 64)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("func.func @f( {", "-:1:14: expected non-function type"),
        ("\1\2", "unexpected character"),
        ('func.func @f() { "foo.bar"() : () -> () return }', "-:1:27: .*unregistered dialect"),
        ("func.func @f(%a: i32) -> i64 { return %a : i32 }", "doesn't match function result type"),
        ("func.func @f(%a: tensor<4xf32>) { return }", "-:1:1: 'func.func' was not lowered"),
        (
            'func.func @f() { llvm.call_intrinsic "llvm.x86.nothing"() : () -> () return }',
            "-:1:18: could not find LLVM intrinsic",
        ),
        (EXP, "the code calls expf"),
    ],
)
def test_bad_module_is_an_error(text: str, message: str) -> None:
    with pytest.raises(CodegenError, match=message):
        jit(text)


def test_crash_of_upstream_costs_one_module() -> None:
    for _ in range(2):
        with pytest.raises(CodegenError, match="could not find LLVM intrinsic"):
            lower(
                'llvm.func @f() { llvm.call_intrinsic "llvm.no"() : () -> () llvm.return }',
                "x86_64",
            )
        assert "@double" in lower(DOUBLE, "x86_64")


def test_an_interrupted_worker_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(stream: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "read_message", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lower(DOUBLE, "x86_64")
    assert "@look" in lower(TABLES, "x86_64")


def test_idle_workers_can_be_ended() -> None:
    lower(DOUBLE, "x86_64")
    workers.close_idle()
    assert "@double" in lower(DOUBLE, "x86_64")


def test_instruction_that_the_target_lacks() -> None:
    with pytest.raises(CodegenError, match="llc failed: LLVM ERROR"):
        compile_module(VNNI, for_level(isa.X86_64_V3))
    assert symbols(compile_module(VNNI, for_level(isa.AVX512_VNNI))).defined == {"dot"}


def test_llvm_that_rejects_its_input() -> None:
    with pytest.raises(CodegenError, match=r"opt failed: .*expected top-level entity"):
        assemble("nonsense", native())


@pytest.mark.parametrize("level", isa.LEVELS.values(), ids=lambda level: level.name)
def test_every_level_compiles(level: isa.Isa) -> None:
    machine = for_level(level)
    assert symbols(compile_module(DOUBLE, machine)).machine == machine.architecture


def test_machine_runs_what_needs_no_more() -> None:
    low, high = for_level(isa.X86_64_V3), for_level(isa.AMX)
    assert high.runs(low)
    assert high.runs(high)
    assert not low.runs(high)
    assert not high.runs(for_level(isa.NEON))
    assert not for_level(isa.X86_64_V4).runs(for_level(isa.AVX512_VNNI))
    assert x86_machine(frozenset()).cpu == "x86-64"
    assert native().runs(native())


def test_code_for_another_machine_does_not_load() -> None:
    other = for_level(isa.NEON) if native().triple != AARCH64 else for_level(isa.X86_64_V3)
    with pytest.raises(ObjectError, match=f"object code for {other.architecture}"):
        load([compile_module(DOUBLE, other)])


def test_damaged_objects_do_not_load() -> None:
    code = compile_module(DOUBLE)
    for bad in (b"", b"\x7fELF", code[:40], code[:-30], b"x" + code[1:]):
        with pytest.raises(ObjectError):
            load([bad])


def test_linking_errors() -> None:
    code = compile_module(DOUBLE)
    with pytest.raises(ObjectError, match="two objects define 'double'"):
        load([code, code])
    caller = "func.func private @absent()\nfunc.func @f() { call @absent() : () -> () return }"
    with pytest.raises(ObjectError, match="needs 'absent'"):
        load([compile_module(caller, allowed=["absent"])])


def test_objects_are_linked_with_each_other() -> None:
    caller = """
func.func private @double(memref<64xf32>, memref<64xf32>, index)
func.func @twice(%a: memref<64xf32>, %b: memref<64xf32>, %n: index) {
  call @double(%a, %b, %n) : (memref<64xf32>, memref<64xf32>, index) -> ()
  call @double(%b, %b, %n) : (memref<64xf32>, memref<64xf32>, index) -> ()
  return
}"""
    library = load([compile_module(caller, allowed=["double"]), compile_module(DOUBLE)])
    out = np.zeros(64, np.float32)
    library.call("twice", np.ones(64, np.float32), out, 64)
    assert (out == 4).all()


def test_bad_calls() -> None:
    library = jit(DOUBLE)
    with pytest.raises(ObjectError, match=r"no function 'half'.*accepted: double"):
        library.symbol("half")
    array = np.zeros(128, np.float32)
    with pytest.raises(ObjectError, match="argument 1 of 'double' is not C-contiguous"):
        library.call("double", array, array[::2], 64)


def test_many_modules_share_code_and_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    sources = {"a": DOUBLE, "b": DOUBLE, "c": TABLES}
    seen: list[str] = []
    first = compile_modules(sources, cache=cache, progress=seen.append)
    assert seen == ["a", "b", "c"]
    assert first["a"] == first["b"] != first["c"]
    assert len(list(cache.entries())) == 2
    cache.put(cache_key(TABLES, native()), b"from the cache")
    assert compile_modules(sources, cache=cache)["c"] == b"from the cache"


def test_a_full_cache_disk_does_not_stop_compilation(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    key = cache_key(DOUBLE, native())
    (tmp_path / "cache" / key[:2]).write_bytes(b"in the way of the folder")
    assert compile_modules({"a": DOUBLE}, cache=cache)["a"]


def test_error_of_one_of_many_modules() -> None:
    with pytest.raises(CodegenError, match="expected non-function type"):
        compile_modules({"a": DOUBLE, "b": "func.func @f( {", "c": TABLES})


def test_cache_key_tells_everything_apart() -> None:
    machine = Machine("x86_64-unknown-linux-gnu", "x86-64-v3")
    keys = {
        cache_key(DOUBLE, machine),
        cache_key(TABLES, machine),
        cache_key(DOUBLE, Machine(machine.triple, "x86-64-v4")),
        cache_key(DOUBLE, Machine(machine.triple, "x86-64-v3", ("+gfni",))),
        cache_key(DOUBLE, machine, opt=2),
    }
    assert len(keys) == 5


def test_wheel_versions_are_those_of_the_project() -> None:
    text = (Path(__file__).parents[4] / "pyproject.toml").read_text()
    pinned = tomllib.loads(text)["project"]["dependencies"]
    for wheel, version in toolchain.WHEELS.items():
        assert f"{wheel}=={version}" in pinned


def test_missing_or_wrong_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    for wheels, message in (
        ({"nybble-no-such-wheel": "1"}, "nybble-no-such-wheel is not installed.*pip install"),
        ({"numpy": "0.1"}, "is not the version nybble was tested with.*pip install numpy==0.1"),
    ):
        monkeypatch.setattr(toolchain, "WHEELS", wheels)
        toolchain.versions.cache_clear()
        with pytest.raises(CodegenError, match=message):
            toolchain.versions()
    monkeypatch.undo()
    toolchain.versions.cache_clear()
    assert "22.1.8" in toolchain.versions()
