"""Lowers torch-dialect functions to linalg on tensors, with nybble's linear kept as a call.

torch-mlir has no lowering for custom ops, and some of its passes reject them. So each
`torch.nybble.linear` first becomes a call of a private function whose attributes hold the format
and shape of the weight; pass `convert-linear-to-mpgemm` turns the calls into products.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from torch_mlir.dialects import func as func_dialect

from nybble.dialects.errors import NybbleError, SourceLocation

# Native modules without type information.
ir: Any = import_module("torch_mlir.ir")
passmanager: Any = import_module("torch_mlir.passmanager")

LOCATION = re.compile(r'"([^"]*)":(\d+):(\d+)')
PREFIX = "torch.nybble."
TO_BACKEND = (
    "func.func(torch-match-quantized-custom-ops),torchdynamo-export-to-torch-backend-pipeline{}"
)
TO_LINALG = (
    "func.func(convert-torch-to-tmtensor),canonicalize,"
    "func.func(convert-torch-to-linalg,convert-torch-to-scf,convert-torch-to-arith,"
    "convert-torch-to-tensor),canonicalize,func.func(cse),"
    "torch-func-backend-type-conversion,canonicalize,"
    "func.func(torch-finalizing-backend-type-conversion),canonicalize,cse,"
    # xDSL knows few of the named ops.
    "func.func(linalg-generalize-named-ops)"
)


def lower_to_linalg(module: Any) -> None:
    """Lower a torch_mlir.ir.Module in place; NybbleError where torch-mlir has no lowering."""
    with module.context, ir.Location.unknown():
        _replace_linears(module)
        for passes in (TO_BACKEND, TO_LINALG):
            _run(module, passes)


def _run(module: Any, passes: str) -> None:
    try:
        passmanager.PassManager.parse(f"builtin.module({passes})").run(module.operation)
    except ir.MLIRError as error:
        told = error.error_diagnostics
        reason = told[0].message if told else "no reason given"
        raise NybbleError(
            f"torch-mlir cannot lower the module: {reason}",
            location=_location(str(told[0].location)) if told else None,
        ) from error


def _location(text: str) -> SourceLocation | None:
    """The place in a Python file that an upstream location names first."""
    found = LOCATION.search(text)
    return SourceLocation(found[1], int(found[2]), int(found[3]) + 1) if found else None


def _replace_linears(module: Any) -> None:
    declared: dict[tuple[str, str], str] = {}
    for op in list(_custom_ops(module)):
        name = ir.StringAttr(op.attributes["name"]).value
        if name != f"{PREFIX}linear":
            raise NybbleError(f"'{name}' is not known here", accepted=f"{PREFIX}linear")
        tensors = [value for value in op.operands if str(value.type).startswith("!torch.vtensor")]
        fmt, rows, cols = (value.owner.attributes["value"] for value in list(op.operands)[3:])
        type_ = ir.FunctionType.get([value.type for value in tensors], [op.results[0].type])
        attributes = {"nybble.format": fmt, "nybble.rows": rows, "nybble.cols": cols}
        key = (str(type_), str(attributes))
        if key not in declared:
            declared[key] = _declare(module, f"nybble.linear.{len(declared)}", type_, attributes)
        call = func_dialect.CallOp(
            [op.results[0].type], declared[key], tensors, ip=ir.InsertionPoint(op)
        )
        op.results[0].replace_all_uses_with(call.results[0])
        op.erase()


def _custom_ops(module: Any) -> Iterator[Any]:
    for function in module.body:
        for block in function.regions[0]:
            for op in block:
                if op.operation.name != "torch.operator":
                    continue
                if ir.StringAttr(op.attributes["name"]).value.startswith(PREFIX):
                    yield op.operation


def _declare(module: Any, name: str, type_: Any, attributes: dict[str, Any]) -> str:
    start = ir.InsertionPoint.at_block_begin(module.body)
    function = func_dialect.FuncOp(name, type_, visibility="private", ip=start)
    for key, value in attributes.items():
        function.attributes[key] = value
    return name
