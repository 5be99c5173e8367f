"""What the machine code of a kernel looks like: instructions, spills and vector registers."""

import re
from collections.abc import Mapping

from nybble.backends.llvm.toolchain import output_of

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
_VECTOR = re.compile(r"%([xyz]mm)(\d+)")
_STACK = re.compile(r"\(%r[sb]p[,)]")
_STORED = re.compile(r"%[xyz]mm\d+, [^,]*\(%r[sb]p[^)]*\)$")
_MULTIPLIED = ("vfmadd", "vfnmadd", "vpmadd", "vpdp", "vpmull", "vpshufb", "vpermb")


def inspect(data: bytes) -> dict[str, dict[str, int]]:
    """Function -> its counts: instructions, vector, multiplies, spills, reloads, registers.

    vector: instructions with a vector register. spills, reloads: vector registers that go to the
    stack and come back. registers: vector registers in use. x86-64 only; empty counts elsewhere.
    """
    text = output_of(
        "llvm-objdump", ["-d", "--no-show-raw-insn", "--no-leading-addr"], data
    ).decode()
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = _FUNCTION.match(line)
        if head is not None or line.endswith(">:"):
            name = line.rpartition("<")[2].removesuffix(">:")
            lines = found[name] = []
        elif line.startswith(("\t", "  ")):
            lines.append(line.strip())
    return {name: dict(_counts(code)) for name, code in found.items()}


def _counts(code: list[str]) -> Mapping[str, int]:
    vectors = [line for line in code if _VECTOR.search(line)]
    stack = [line for line in vectors if _STACK.search(line)]
    stored = sum(1 for line in stack if _STORED.search(line))
    return {
        "instructions": len(code),
        "vector": len(vectors),
        "multiplies": sum(1 for line in code if line.startswith(_MULTIPLIED)),
        "spills": stored,
        "reloads": len(stack) - stored,
        "registers": len({n for line in vectors for _, n in _VECTOR.findall(line)}),
    }
