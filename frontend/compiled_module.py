"""A compiled PyTorch module: a function on tensors of fixed shapes, run by generated code."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from nybble.backends.cpu import arena
from nybble.backends.cpu.artifact import Artifact, Bytes
from nybble.backends.cpu.artifact_writer import save
from nybble.backends.cpu.elf import ObjectError
from nybble.backends.cpu.executor import Executor
from nybble.backends.cpu.host import request_amx, thread_count
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import Machine
from nybble.backends.cpu.plan import Json, Plan, PlanError
from nybble.backends.cpu.plan_json import as_scalar
from nybble.backends.cpu.runner import EXTERNALS
from nybble.dialects.errors import NybbleError
from nybble.frontend.compiled import Compiled, Notes
from nybble.frontend.values import Array, Signature, check, is_list, is_tensor, to_array

KIND = "module"
PROGRAM = "main"


@dataclass(frozen=True)
class Interface:
    """What a module takes and gives.

    results: the buffer of one may be that of an input, or of another result. single: whether a
    call gives the one result and not a tuple.
    """

    inputs: tuple[Signature, ...]
    results: tuple[Signature, ...]
    single: bool

    def to_json(self) -> dict[str, Json]:
        """For a plan's `extra`."""
        return {
            "kind": KIND,
            "inputs": [signature.to_json() for signature in self.inputs],
            "results": [signature.to_json() for signature in self.results],
            "single": self.single,
        }

    @staticmethod
    def of(plan: Plan) -> "Interface":
        """What `to_json` put into a plan; raises PlanError for a plan that does not fit it."""
        extra = plan.config.extra
        inputs, results = (_signatures(plan, extra.get(key)) for key in ("inputs", "results"))
        return Interface(inputs, results, as_scalar(extra.get("single"), bool, "single"))


def _signatures(plan: Plan, value: Json) -> tuple[Signature, ...]:
    if not is_list(value):
        raise PlanError("the plan of a module does not say what it takes and gives")
    found = tuple(Signature.from_json(item) for item in value)
    for signature in found:
        buffer = plan.buffer_table.get(signature.buffer)
        if buffer is None or buffer.bytes < signature.bytes:
            raise PlanError(f"no buffer '{signature.buffer}' of {signature.bytes} bytes")
    return found


@dataclass(frozen=True)
class Code:
    """What an artifact holds: the plan, object code for a machine, packed weights."""

    plan: Plan
    machine: Machine
    objects: list[bytes]
    weights: Bytes


class CompiledModule(Compiled):
    """A module that was compiled for tensors of certain shapes; call it as the module.

    Arguments are numpy arrays or PyTorch's CPU tensors, of exactly the shapes and dtypes compiled
    for. Results are new memory, of the same kind: torch.Tensor if any argument is one.
    """

    def __init__(self, code: Code, notes: Notes, threads: int) -> None:
        super().__init__(notes)
        if "+amx-tile" in code.machine.features and not request_amx():
            raise ObjectError(
                "the code uses AMX tiles and the kernel does not grant them",
                accepted="a compilation for a lower level",
            )
        self.interface = Interface.of(code.plan)
        self._code = code
        self._lock = Lock()
        library = load(code.objects, EXTERNALS)
        self._executor = Executor(code.plan, library, code.weights, threads)

    @staticmethod
    def open(artifact: Artifact, notes: Notes, threads: int | None) -> "CompiledModule":
        """A saved module; threads: by default one for each processor."""
        plan = artifact.plan
        count = threads or min(thread_count(), plan.config.threads)
        code = Code(plan, artifact.machine, artifact.objects(), artifact.weights())
        return CompiledModule(code, notes, count)

    def __call__(self, *inputs: object) -> object:
        """The module's result for these inputs. Several threads may call; they take turns.

        Raises NybbleError for inputs of other shapes, dtypes or number than compiled for.
        """
        expected = self.interface.inputs
        if len(inputs) != len(expected):
            raise NybbleError(f"{len(inputs)} inputs", accepted=str(len(expected)))
        arrays = [to_array(value, f"input {index}") for index, value in enumerate(inputs)]
        for index, (array, signature) in enumerate(zip(arrays, expected, strict=True)):
            check(array, signature, f"input {index}")
        results = self._run(arrays)
        if any(is_tensor(value) for value in inputs):
            return self._given([_as_tensor(result) for result in results])
        return self._given(results)

    def close(self) -> None:
        """End the worker threads; nothing can run afterwards."""
        self._executor.close()

    def _given(self, results: Sequence[object]) -> object:
        return results[0] if self.interface.single else tuple(results)

    def _run(self, arrays: Sequence[Array]) -> list[Array]:
        """Copy in, run, copy out."""
        with self._lock:
            for array, signature in zip(arrays, self.interface.inputs, strict=True):
                self._view(signature)[...] = array
            self._executor.run((PROGRAM,), 1, 0)
            return [self._view(signature).copy() for signature in self.interface.results]

    def _view(self, signature: Signature) -> Array:
        flat = self._executor.view(signature.buffer, np.uint8)[: signature.bytes]
        return flat.view(signature.dtype).reshape(signature.shape)

    def _write(self, directory: Path) -> None:
        code = self._code
        placement = arena.weights(code.plan)
        table = code.plan.buffer_table

        def weight(name: str) -> Bytes:
            start = placement.offsets[name]
            return code.weights[start : start + table[name].bytes]

        save(directory, code.plan, code.machine, code.objects, weight)


def _as_tensor(array: Array) -> object:
    import torch

    return torch.from_numpy(array)
