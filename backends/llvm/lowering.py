"""The one user of the mlir wheel: a module of upstream dialects becomes LLVM IR.

It runs in worker processes of its own (see workers.py): upstream code ends the process on some
inputs, for instance on an unknown intrinsic, and the compiler must outlive that.
"""

import json
import re
import struct
import sys
from typing import IO, Any

from nybble.dialects.errors import InternalError

PIPELINE = (
    "builtin.module("
    "canonicalize,cse,"
    "convert-vector-to-scf,"
    "convert-scf-to-cf,"
    "expand-strided-metadata,"
    "lower-affine,"
    "convert-vector-to-llvm{%s},"
    "finalize-memref-to-llvm,"
    "convert-arith-to-llvm,"
    "convert-math-to-llvm,"
    "convert-index-to-llvm,"
    "convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},"
    "convert-cf-to-llvm,"
    "convert-ub-to-llvm,"
    "reconcile-unrealized-casts)"
)
VECTOR_OPTIONS = {
    "x86_64": "enable-amx=1 enable-x86vector=1",
    "aarch64": "enable-arm-neon=1",
    "nvptx64": "",
    "riscv64": "",
}
LENGTH = struct.Struct("<Q")
LOCATION = re.compile(r'loc\("(?P<file>[^"]*)":(?P<line>\d+):(?P<column>\d+)')


class LoweringError(InternalError):
    """An upstream diagnostic: what is wrong, and the file, line and column, or None."""

    def __init__(self, message: str, location: tuple[str, int, int] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.location = location


def to_llvm_ir(text: str, architecture: str) -> str:
    """The LLVM IR of a module text; raises LoweringError, or ends the process."""
    from mlir.dialects import llvm  # the import is slow: only a worker pays for it
    from mlir.ir import Context, Module
    from mlir.passmanager import PassManager

    with Context() as context:
        context.enable_multithreading(False)  # pyright: ignore[reportAttributeAccessIssue]
        module = _diagnosed(lambda: Module.parse(text))
        pipeline = PassManager.parse(PIPELINE % VECTOR_OPTIONS[architecture])
        _diagnosed(lambda: pipeline.run(module.operation))
        _only_llvm(module)
        _no_casts(module)
        return llvm.translate_module_to_llvmir(  # pyright: ignore[reportAttributeAccessIssue]
            module.operation
        )


def transform(text: str, pipeline: str) -> str:
    """A module text after an upstream pipeline, in generic form; raises LoweringError."""
    from mlir.ir import Context, Module
    from mlir.passmanager import PassManager

    with Context() as context:
        context.enable_multithreading(False)  # pyright: ignore[reportAttributeAccessIssue]
        module = _diagnosed(lambda: Module.parse(text))
        passes = PassManager.parse(pipeline)
        _diagnosed(lambda: passes.run(module.operation))
        return module.operation.get_asm(print_generic_op_form=True)


def _diagnosed(action: Any) -> Any:
    """The result of an upstream call, its MLIRError (which the stubs lack) as a LoweringError."""
    from mlir import ir

    try:
        return action()
    except ir.MLIRError as error:  # pyright: ignore[reportAttributeAccessIssue]
        told = error.error_diagnostics
        if not told:
            raise LoweringError(str(error)) from None
        raise LoweringError(told[0].message, place(str(told[0].location))) from None


def place(location: str) -> tuple[str, int, int] | None:
    """File, line and column of an upstream location, or None if it has none."""
    found = LOCATION.search(location)
    return (found["file"], int(found["line"]), int(found["column"])) if found else None


def _only_llvm(module: Any) -> None:
    """Raises LoweringError for an operation that no pass lowered."""
    for operation in module.body.operations:
        if not operation.operation.name.startswith("llvm."):
            name = operation.operation.name
            raise LoweringError(f"'{name}' was not lowered", place(str(operation.location)))


def _no_casts(module: Any) -> None:
    """Raises LoweringError for a cast between types that no pass could undo: translation of one
    ends the process without a word.
    """
    from mlir.ir import WalkResult

    found: list[Any] = []

    def visit(operation: Any) -> Any:
        if operation.name == "builtin.unrealized_conversion_cast":
            found.append(operation)
            return WalkResult.INTERRUPT
        return WalkResult.ADVANCE

    module.operation.walk(visit)
    if found:
        raise LoweringError(f"'{found[0]}' was not lowered", place(str(found[0].location)))


def read_message(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message of a worker's pipe, or None at its end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    body = stream.read(LENGTH.unpack(head)[0])
    return json.loads(body) if body else None


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Writes one message to a worker's pipe."""
    body = json.dumps(message).encode()
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def serve() -> None:
    """The worker's loop: lowers each module that comes in on standard input, until its end."""
    while (request := read_message(sys.stdin.buffer)) is not None:
        try:
            pipeline = request.get("pipeline")
            made = (
                transform(request["text"], pipeline)
                if pipeline
                else to_llvm_ir(request["text"], request["architecture"])
            )
            reply = {"ir": made}
        except LoweringError as error:
            reply = {"error": error.message, "location": error.location}
        write_message(sys.stdout.buffer, reply)
