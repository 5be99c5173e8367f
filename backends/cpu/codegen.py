"""A module of upstream dialects becomes object code: the door between xDSL and LLVM.

xDSL hands a module over as generic text. Upstream passes lower it (lowering.py, in workers), then
LLVM's `opt` and `llc` turn it into an object file in subprocesses: they know any target that the
wheel knows, run beside each other, and cannot take this process down. Memrefs are passed as bare
pointers: `func.func @f(%a: memref<8xf32>, %n: index)` is `void f(float *a, int64_t n)` in C.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256

from nybble.backends.cache import Cache, CacheError
from nybble.backends.cpu.elf import symbols
from nybble.backends.cpu.expand import expanded
from nybble.backends.cpu.loader import PROCESS_SYMBOLS, Library, load
from nybble.backends.cpu.machine import X86_64, Machine, native
from nybble.backends.llvm.lowering import PIPELINE
from nybble.backends.llvm.text import Source, generic_text
from nybble.backends.llvm.toolchain import CodegenError, run, versions
from nybble.backends.llvm.workers import lower

FORMAT = "4"
JOBS = 2


def assemble(llvm_ir: str, machine: Machine, opt: int = 3) -> bytes:
    """The object file (ELF, position independent) of a module of LLVM IR.

    opt: 0 to 3, LLVM's optimization level. Raises CodegenError if LLVM gives up, for instance on
    an intrinsic that `machine` has no instruction for.
    """
    options = [f"-O{opt}", f"-mtriple={machine.triple}", f"-mcpu={machine.cpu}"]
    options.append(f"-mattr={machine.attributes}")
    bitcode = run("opt", options, llvm_ir.encode())
    if machine.triple == X86_64:
        # Else the stack is aligned to 16 bytes, as a caller leaves it, and so are registers that go
        # there: of those of 32 bytes half would lie across two lines of the cache, or none, as it
        # happens in each process, and what lies so comes back in twice the time.
        options.append("-stackrealign")
    if machine.few_registers:
        # Kernels are written in an order that fits the registers; LLVM's own order spills. So does
        # what its combiner makes of running sums: trees, whose leaves all wait in registers.
        options += ["-enable-misched=false", "-x86-machine-combiner=false"]
    return run("llc", [*options, "-filetype=obj", "-relocation-model=pic"], bitcode)


def check_symbols(data: bytes, allowed: Iterable[str] = ()) -> None:
    """Raises CodegenError if the object needs a symbol that no process is sure to have."""
    unknown = symbols(data).undefined - PROCESS_SYMBOLS - set(allowed)
    if unknown:
        raise CodegenError(
            f"the code calls {', '.join(sorted(unknown))}, which nothing here provides",
            accepted="operations that lower to instructions; expand calls of libm beforehand",
        )


def cache_key(text: str, machine: Machine, opt: int = 3) -> str:
    """The hex SHA-256 of all that the object code depends on."""
    parts = (FORMAT, versions(), PIPELINE, str(machine), str(opt), text)
    return sha256("\0".join(parts).encode()).hexdigest()


def compile_module(
    source: Source, machine: Machine | None = None, opt: int = 3, allowed: Iterable[str] = ()
) -> bytes:
    """The object code of a module (xDSL, or text that upstream MLIR parses).

    machine: what to compile for, this host by default; opt: LLVM's level, 0 to 3;
    allowed: external symbols that the loader will find in the process.
    Raises CodegenError with the upstream diagnostic and its place in the generic text.
    """
    target = machine or native()
    data = assemble(lower(_text(source, target), target.architecture), target, opt)
    check_symbols(data, allowed)
    return data


def _text(source: Source, machine: Machine) -> str:
    return generic_text(source if isinstance(source, str) else expanded(source, machine))


def compile_modules(
    sources: Mapping[str, Source],
    machine: Machine | None = None,
    *,
    cache: Cache | None = None,
    jobs: int = JOBS,
    allowed: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """name -> object code of many modules, in their order; equal texts are compiled once.

    cache: consulted first and filled; jobs: how many modules are compiled at once;
    allowed: as for `compile_module`, of every module;
    progress: called with each name when its code is there.
    """
    target = machine or native()
    code: dict[str, Future[bytes]] = {}
    names: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for name, source in sources.items():
            text = _text(source, target)
            key = names[name] = cache_key(text, target)
            if key not in code:
                code[key] = pool.submit(_cached, cache, key, text, target, allowed)
        done: dict[str, bytes] = {}
        for name, key in names.items():
            done[name] = code[key].result()
            if progress:
                progress(name)
    return done


def _cached(
    cache: Cache | None, key: str, text: str, machine: Machine, allowed: Iterable[str]
) -> bytes:
    stored = cache.get(key) if cache else None
    if stored is not None:
        return stored
    data = compile_module(text, machine, allowed=allowed)
    if cache:
        with suppress(CacheError):  # a full disk costs time on the next run, not this one
            cache.put(key, data)
    return data


def jit(source: Source, opt: int = 3, allowed: Iterable[str] = ()) -> Library:
    """The module compiled for this host and loaded into this process."""
    return load([compile_module(source, native(), opt, allowed)], allowed)
