"""Functions of harts to an ELF file: upstream MLIR and LLVM write assembly, GNU as and ld the rest.

LLVM comes with llvmlite, whose build knows RISC-V; the assembler and the linker are GNU's.
"""

import re
import subprocess
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from xdsl.dialects.builtin import ModuleOp

from nybble.backends.llvm.text import generic_text
from nybble.backends.llvm.toolchain import CodegenError, last_words
from nybble.backends.llvm.workers import lower
from nybble.backends.spgemm.rv.frame import PROFILES
from nybble.backends.spgemm.rv.runtime import LINKER_SCRIPT, runtime
from nybble.backends.spgemm.rv.xspgemm import substitute

TRIPLE = "riscv64-unknown-elf"
FEATURES = "+m,+a,+f,+d"
ABI = "lp64d"
ATTRIBUTES = re.compile(r"^\s*\.attribute\b.*\n", re.MULTILINE)
"""Names of extensions that GNU's assembler is too old to know."""
PREFIX = "riscv64-linux-gnu-"
PACKAGE = "binutils-riscv64-linux-gnu"


def llvm_assembly(llvm_ir: str) -> str:
    """The assembly of a module of LLVM IR; raises CodegenError."""
    import llvmlite.binding as llvm  # it loads a second LLVM: only who emits RISC-V pays for it

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        module = llvm.parse_assembly(llvm_ir)
        machine = llvm.Target.from_triple(TRIPLE).create_target_machine(
            features=FEATURES, reloc="static", codemodel="medium", abiname=ABI, opt=2
        )
    except RuntimeError as error:
        raise CodegenError(f"LLVM refuses a program: {error}") from error
    module.triple = TRIPLE
    module.data_layout = str(machine.target_data)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
    passes.getModulePassManager().run(module, passes)
    return ATTRIBUTES.sub("", machine.emit_assembly(module))


@cache
def tool(name: str) -> str:
    """The path of GNU's `as` or `ld` for RISC-V; raises CodegenError where it is missing."""
    found = which(PREFIX + name)
    if found is None:
        raise CodegenError(
            f"{PREFIX}{name} is not installed", accepted=f"apt-get install {PACKAGE}"
        )
    return found


def assembly_of(module: ModuleOp) -> str:
    """The assembly of a module of upstream dialects, with xspgemm's instructions in their place."""
    return substitute(llvm_assembly(lower(generic_text(module), "riscv64")))


def link(assembly: str, profile: str) -> bytes:
    """The ELF file of a kernel's assembly with the runtime; raises CodegenError."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        parts = {"kernel": assembly, "runtime": runtime(profile != PROFILES[0])}
        for name, text in parts.items():
            (place / f"{name}.s").write_text(text)
            source, made = f"{place}/{name}.s", f"{place}/{name}.o"
            _run(
                tool("as"), "-march=rv64imafd_zicsr", f"-mabi={ABI}", "-mno-relax",
                source, "-o", made,
            )  # fmt: skip
        (place / "link.ld").write_text(LINKER_SCRIPT)
        objects = [f"{place}/{name}.o" for name in parts]
        _run(tool("ld"), "-static", "-T", f"{place}/link.ld", *objects, "-o", f"{place}/elf")
        return (place / "elf").read_bytes()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        name = Path(command[0]).name
        raise CodegenError(f"{name} failed: {last_words(done.stderr, done.returncode)}")
