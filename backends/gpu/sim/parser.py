"""Reads PTX: what LLVM, NVRTC and Triton emit, and inline assembly with scopes of its own.

Follows the PTX ISA 8.x and 9.x (https://docs.nvidia.com/cuda/parallel-thread-execution).
"""

import re
import struct
from dataclasses import dataclass, field, replace

from nybble.backends.gpu.sim.operands import parse_operands
from nybble.backends.gpu.sim.ptx import Entry, Instruction, Module, Name, PtxError, Variable, place
from nybble.backends.gpu.sim.types import scalar

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_SKIP = re.compile(r"\s+")
_LABEL = re.compile(r"([A-Za-z_$%][\w$]*)\s*:(?!:)")
_TO_END_OF_LINE = re.compile(r"\.(?:loc|file|version|target|address_size)\b([^\n;]*)")
_SECTION = re.compile(r"\.section\s+\S+\s*\{[^}]*\}", re.DOTALL)
_ENTRY = re.compile(r"(?:\.visible\s+|\.weak\s+)*\.entry\s+([\w$]+)\s*")
_FUNCTION = re.compile(r"(?:\.\w+\s+)*\.func\b")
_TUNING = re.compile(
    r"\.(?:maxntid|reqntid|minnctapersm|maxnctapersm|maxnreg|noreturn|pragma|explicitcluster|"
    r"reqnctapercluster|maxclusterrank|blocksareclusters)\b[^\n{;]*;?"
)
_VARIABLE = re.compile(
    r"(?:\.(?:visible|extern|weak|common)\s+)*\.(?P<space>shared|local|global|const|param)\s+"
    r"(?P<attributes>(?:\.(?:align\s+\d+|ptr|global|shared|const|local)\s*)*)"
    r"\.(?P<type>\w+)\s+(?P<attributes2>(?:\.(?:align\s+\d+|ptr|global|shared|const|local)\s*)*)"
    r"(?P<name>[\w$%]+)\s*(?P<array>(?:\[\s*\d*\s*\])*)\s*(?:=\s*(?P<initial>.*))?$",
    re.DOTALL,
)
_REGISTER = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$", re.DOTALL)
_RANGE = re.compile(r"(.+)<\s*(\d+)\s*>$")
_INSTRUCTION = re.compile(
    r"(?:@(!?)\s*([\w%$]+)\s+)?([a-z][\w]*)((?:(?:\.|::)[\w]+)*)(.*)$", re.DOTALL
)
_TARGETS = re.compile(r"\.branchtargets\s+(.*)$", re.DOTALL)


@dataclass
class _Scanner:
    """A text without comments, read from the front; comments leave their line breaks."""

    text: str
    file: str
    at: int = 0
    lines: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.lines = [found.start() for found in re.finditer("\n", self.text)]

    def line(self, at: int | None = None) -> int:
        """The line of a position, from 1."""
        position = self.at if at is None else at
        low, high = 0, len(self.lines)
        while low < high:
            middle = (low + high) // 2
            if self.lines[middle] < position:
                low = middle + 1
            else:
                high = middle
        return low + 1

    def fail(self, message: str, line: int | None = None) -> PtxError:
        """An error at the position."""
        return PtxError(message, location=place(self.file, line or self.line()))

    def skip(self) -> bool:
        """Go to the next character that is not space; False at the end."""
        if found := _SKIP.match(self.text, self.at):
            self.at = found.end()
        return self.at < len(self.text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What matches here, and go behind it."""
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def until(self, mark: str) -> str:
        """The text up to a mark, and go behind the mark."""
        end = self.text.find(mark, self.at)
        if end < 0:
            raise self.fail(f"no '{mark}' ends this")
        text, self.at = self.text[self.at : end], end + len(mark)
        return text


def parse(text: str, file: str = "<ptx>") -> Module:
    """The module of a text; raises PtxError with its line."""
    scanner = _Scanner(_COMMENT.sub(_blank, text), file)
    module = Module(file)
    while scanner.skip():
        _module_item(scanner, module)
    return module


def _blank(found: re.Match[str]) -> str:
    return "\n" * found.group().count("\n")


def _module_item(scanner: _Scanner, module: Module) -> None:
    if found := scanner.take(_TO_END_OF_LINE):
        words = found.group().split(None, 1)
        if words[0] in (".version", ".target"):
            setattr(module, words[0][1:], found[1].strip())
        return
    if scanner.take(_SECTION):
        return
    if found := scanner.take(_ENTRY):
        entry = _entry(scanner, found[1])
        module.entries[entry.name] = entry
    elif _FUNCTION.match(scanner.text, scanner.at):
        _skip_function(scanner)
    else:
        line = scanner.line()
        module.variables.append(_variable(scanner, scanner.until(";").strip(), line))


def _skip_function(scanner: _Scanner) -> None:
    """Go behind a function: only a call of it is an error."""
    rest = re.compile(r"[^;{]*").match(scanner.text, scanner.at)
    assert rest is not None
    scanner.at = rest.end()
    depth = 0
    while scanner.skip():
        mark = scanner.text[scanner.at]
        scanner.at += 1
        depth += (mark == "{") - (mark == "}")
        if depth == 0 and mark in ";}":
            return


def _entry(scanner: _Scanner, name: str) -> Entry:
    entry = Entry(name, [], scanner.line())
    scanner.skip()
    if scanner.text.startswith("(", scanner.at):
        line = scanner.line()
        listed = scanner.until(")")[1:]
        parts = [part.strip() for part in listed.split(",") if part.strip()]
        entry.parameters = [_variable(scanner, part, line) for part in parts]
    while scanner.skip() and scanner.take(_TUNING):
        pass
    if not scanner.text.startswith("{", scanner.at):
        raise scanner.fail(f"kernel '{name}' has no body")
    scanner.at += 1
    _Body(scanner, entry).read()
    return entry


def _variable(scanner: _Scanner, text: str, line: int) -> Variable:
    found = _VARIABLE.match(text)
    if found is None:
        raise scanner.fail(f"'{' '.join(text.split())[:60]}' is not a declaration", line)
    try:
        element = scalar(found["type"])
    except KeyError:
        raise scanner.fail(f"'.{found['type']}' is not a type", line) from None
    count: int | None = 1
    for length in re.findall(r"\[\s*(\d*)\s*\]", found["array"]):
        count = None if not length or count is None else count * int(length)
    aligned = re.search(r"align\s+(\d+)", found["attributes"] + found["attributes2"])
    is_pointer = ".ptr" in found["attributes"] + found["attributes2"]
    align = int(aligned[1]) if aligned and not is_pointer else element.bytes
    initial = _initial(scanner, found["initial"], element.bytes, line)
    size = count * element.bytes if count is not None else (len(initial) or None)
    return Variable(found["name"], found["space"], found["type"], align, size, initial)


def _initial(scanner: _Scanner, text: str | None, size: int, line: int) -> bytes:
    if text is None:
        return b""
    values: list[bytes] = []
    for word in text.replace("{", " ").replace("}", " ").replace(",", " ").split():
        try:
            values.append(_literal(word, size))
        except ValueError:
            raise scanner.fail(f"'{word}' is not a number", line) from None
    return b"".join(values)


def _literal(word: str, size: int) -> bytes:
    if word[:2] in ("0f", "0F", "0d", "0D"):
        return int(word[2:], 16).to_bytes(size, "little")
    if "." in word:
        return struct.pack("<f" if size == 4 else "<d", float(word))
    value = int(word.rstrip("U"), 0)
    return (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")


@dataclass
class _Scope:
    """What a pair of braces declares: name -> unique name. start: its first instruction."""

    number: int = 0
    start: int = 0
    names: dict[str, str] = field(default_factory=dict[str, str])


class _Body:
    """The statements of a kernel. A scope renames what it declares, so that names are unique."""

    def __init__(self, scanner: _Scanner, entry: Entry) -> None:
        self.scanner = scanner
        self.entry = entry
        self.scopes = [_Scope()]
        self.opened = 0

    def read(self) -> None:
        """Read up to the brace that ends the kernel."""
        scanner = self.scanner
        while scanner.skip():
            if scanner.text[scanner.at] == "{":
                self._open()
            elif scanner.text[scanner.at] == "}":
                scanner.at += 1
                self._close()
                if not self.scopes:
                    return self._check_labels()
            elif scanner.text[scanner.at] == ";":
                scanner.at += 1
            elif not (scanner.take(_TO_END_OF_LINE) or scanner.take(_TUNING)):
                self._statement()
        raise scanner.fail(f"kernel '{self.entry.name}' has no end", self.entry.line)

    def _open(self) -> None:
        self.scanner.at += 1
        self.opened += 1
        self.scopes.append(_Scope(self.opened, len(self.entry.instructions)))

    def _close(self) -> None:
        """Close a scope: branches in it may have named its labels before they came."""
        scope = self.scopes.pop()
        instructions = self.entry.instructions
        for i in range(scope.start, len(instructions)):
            one = instructions[i]
            target = one.operands[0] if one.opcode == "bra" and one.operands else None
            if isinstance(target, Name) and target.text in scope.names:
                unique = Name(scope.names[target.text])
                instructions[i] = replace(one, operands=(unique, *one.operands[1:]))

    def _statement(self) -> None:
        scanner = self.scanner
        line = scanner.line()
        if found := scanner.take(_LABEL):
            self.entry.labels[self._declare(found[1])] = len(self.entry.instructions)
            return
        text = scanner.until(";").strip()
        if found := _REGISTER.match(text):
            self._registers(found[1], found[2])
        elif found := _TARGETS.match(text):
            label = list(self.entry.labels)[-1]
            self.entry.targets[label] = tuple(word.strip() for word in found[1].split(","))
        elif text.startswith("."):
            variable = _variable(scanner, text, line)
            self.entry.variables.append(replace(variable, name=self._declare(variable.name)))
        else:
            self.entry.instructions.append(self._instruction(text, line))

    def _declare(self, name: str) -> str:
        scope = self.scopes[-1]
        unique = f"{name}.{scope.number}" if scope.number else name
        scope.names[name] = unique
        return unique

    def _registers(self, type_: str, names: str) -> None:
        for name in names.split(","):
            found = _RANGE.match(name.strip())
            made = [f"{found[1]}{i}" for i in range(int(found[2]))] if found else [name.strip()]
            for one in made:
                self.entry.registers[self._declare(one)] = type_

    def _rename(self, name: str) -> str:
        found = (scope.names for scope in reversed(self.scopes) if name in scope.names)
        return next(found, {name: name})[name]

    def _instruction(self, text: str, line: int) -> Instruction:
        found = _INSTRUCTION.match(text)
        if found is None:
            raise self.scanner.fail(f"'{text[:60]}' is not an instruction", line)
        negated, guard, opcode, modifiers, rest = found.groups()
        try:
            operands = parse_operands(rest, self._rename)
        except ValueError as error:
            raise self.scanner.fail(str(error), line) from None
        parts = tuple(modifiers.lstrip(".").split(".")) if modifiers else ()
        condition = Name(self._rename(guard), bool(negated)) if guard else None
        return Instruction(opcode, parts, operands, line, condition)

    def _check_labels(self) -> None:
        for instruction in self.entry.instructions:
            if instruction.opcode != "bra":
                continue
            target = instruction.operands[0]
            if isinstance(target, Name) and target.text not in self.entry.labels:
                raise self.scanner.fail(f"there is no label '{target.text}'", instruction.line)
