"""`nybble compile` of a whole model for an FPGA: a stream of instructions, and what it would do.

The model is only a shape, so no weights are needed. Every figure is modelled: none was measured on
hardware.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nybble.backends.fpga.isa.assembly import disassemble
from nybble.backends.fpga.isa.encoding import Instruction, encode
from nybble.backends.fpga.isa.machine import find_machine
from nybble.backends.fpga.isa.plan import Plan, check_fits, make_plan
from nybble.backends.fpga.isa.store import Store, compile_all
from nybble.backends.fpga.isa.system import Service
from nybble.dialects.errors import UnknownNameError
from nybble.frontend.weight_choice import AS_STORED, WeightChoice
from nybble.frontend.weight_rules import WeightRule, parse_rules
from nybble.tools.diagnostics import UsageError
from nybble.tools.files import write_output
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.fpga_file import compile_file_for_fpga
from nybble.tools.mlir_file import is_mlir
from nybble.tools.models import DEFAULT_CONTEXT, shown_progress
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import ALIASES, SHAPES, find_shape
from nybble.tools.target import CompileRequest

MANIFEST = "manifest.json"
STREAMS = "streams.bin"
USUAL_FORMAT = "w8"
"""Of matrices that no rule of `--weights` names."""
PROMPT, ANSWER = 128, 512
LISTED = {"decode": 512, "prefill": 128}
"""Phase -> the bucket whose layer is listed as assembly."""


@dataclass(frozen=True)
class FpgaModel:
    """A model that was compiled: its map, streams, and a text that it serves."""

    name: str
    rules: tuple[WeightRule, ...]
    plan: Plan
    store: Store
    service: Service

    def report(self) -> dict[str, Any]:
        """The keys of `--json`."""
        service, store, plan = self.service, self.store, self.plan
        joules = service.energy()
        return {
            "modelled": True,
            "model": self.name,
            "target": plan.machine.target.name,
            "weights": {one.name: one.form.spec for one, _ in plan.matrices.values()},
            "context": plan.context,
            "prompt": service.prompt,
            "answer": service.answer,
            "tokens_per_s": service.tokens_per_second,
            "decode_seconds": service.decode_seconds,
            "prefill_seconds": service.prefill.seconds,
            "bandwidth_utilisation": service.bandwidth_utilisation,
            "energy_per_token_joules": sum(joules.values()),
            "energy_joules": joules,
            "instruction_bytes": store.bytes,
            "per_length_instruction_bytes": store.per_length,
            "streams": len(store.streams),
            "memory_bytes": plan.machine.regions * plan.bytes + store.bytes,
            "weights_bytes": plan.matrix_bytes,
            "resources": plan.machine.needs(),
        }

    def lines(self) -> Iterator[str]:
        """The printed form."""
        service, machine = self.service, self.plan.machine
        found = self.report()
        yield f"{self.name} on {machine.target.name} ({machine.target.title}), modelled"
        yield (
            f"prefill of {service.prompt} tokens: {service.prefill.seconds * 1e3:.1f} ms; "
            f"decode of {service.answer}: {service.tokens_per_second:.1f} tokens/s, "
            f"{service.bandwidth_utilisation:.0%} of the memory's peak, "
            f"{found['energy_per_token_joules'] * 1e3:.0f} mJ a token"
        )
        yield (
            f"instructions: {found['instruction_bytes'] / 1e6:.2f} MB in {found['streams']} streams"
            f" for all lengths up to {self.plan.context}; one for each length, layer and channel: "
            f"{found['per_length_instruction_bytes'] / 1e9:.2f} GB"
        )
        yield (
            f"memory: {found['memory_bytes'] / 1e9:.2f} GB, "
            f"{found['weights_bytes'] / 1e9:.2f} GB of it weights"
        )


def compile_for_fpga(request: CompileRequest) -> None:
    """Write the streams of a model, print what they would do, or both; C++ of an MLIR file."""
    if is_mlir(request.model):
        compile_file_for_fpga(request)
        return
    request.refuse("weights", "context", "prompt", "answer")
    if request.start or request.stop:
        raise UsageError("only an MLIR file can start or end at a stage", accepted="no such option")
    if request.output is not None:
        check_folder(request.output, MANIFEST)
    with shown_progress() as progress:
        progress(f"compiling {request.model}")
        model = compile_shape(request.model, request.target.level, request.given)
    if request.output is not None:
        write_model(model, request.output)
    if request.json_file is not None:
        write_output(request.json_file, (json.dumps(model.report(), indent=1) + "\n").encode())
    else:
        for line in model.lines():
            click.echo(line)


def compile_shape(name: str, target: str, given: Mapping[str, Any]) -> FpgaModel:
    """A model by its shape; UnknownNameError, FormatRefused, ResourceError, WeightRuleError."""
    known = ALIASES.get(name, name)
    if known not in SHAPES:
        accepted = ", ".join([*SHAPES, *ALIASES])
        raise UnknownNameError(f"unknown model shape '{name[:60]}'", accepted=accepted)
    shape, choice = find_shape(known), given.get("weights") or AS_STORED
    rules = _rules(choice)
    context = given.get("context") or DEFAULT_CONTEXT
    module = shape_module(shape, USUAL_FORMAT, context, "f16", rules)
    plan = make_plan(module, ("layer_0",) * shape.layers, context, find_machine(target))
    check_fits(plan, 0)
    answer = given.get("answer") or min(ANSWER, context // 2)
    prompt = given.get("prompt") or min(PROMPT, context - answer)
    service = Service(plan, prompt, answer)
    store = compile_all(plan)
    check_fits(plan, store.bytes)
    return FpgaModel(known, rules, plan, store, service)


def _rules(choice: WeightChoice) -> tuple[WeightRule, ...]:
    if choice.rotate or choice.smooth or choice.quantizer != AS_STORED.quantizer:
        raise UsageError(
            "a model that is only a shape has no weights to rotate, smooth or round",
            accepted="--weights RULES",
        )
    return parse_rules(choice.formats) if choice.formats else ()


def write_model(model: FpgaModel, folder: Path) -> None:
    """Write the streams, the assembly of one layer of each phase, and a manifest."""
    streams, places, at = [], {}, 0
    for name, program in model.store.streams.items():
        data = b"".join(map(encode, program))
        places[name] = {"offset": at, "bytes": len(data), "instructions": len(program)}
        streams.append(data)
        at += len(data)
    plan = model.plan
    described = {
        **model.report(),
        "streams": places,
        "registers": plan.registers(),
        "matrices": [
            {"name": one.name, "address": at, "bytes": one.bytes, "tiles": len(one.tiles)}
            for one, at in plan.matrices.values()
        ],
    }
    files = {STREAMS: b"".join(streams), **listings(model)}
    files[MANIFEST] = (json.dumps(described, indent=1) + "\n").encode()
    write_folder(folder, files, MANIFEST)


def listings(model: FpgaModel) -> dict[str, bytes]:
    """File -> one layer of a stream as assembly."""
    found: dict[str, bytes] = {}
    for phase, length in LISTED.items():
        name = f"{phase}_{min(length, model.plan.context)}"
        if name in model.store.streams:
            text = "\n".join(disassemble(_layer(model.store.streams[name])))
            found[f"{name}_layer.s"] = f"# one layer of stream {name}\n{text}\n".encode()
    return found


def _layer(program: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    actions = [one.named("action") if one.unit == "sys" else "" for one in program]
    return program[actions.index("loop") : actions.index("end") + 1]
