"""Functions of a file, lowered to launches and run in the simulator."""

from functools import cached_property

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.model.lower import Lowering
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between


class Launches:
    """The launches of the one function of a text."""

    def __init__(self, text, arch="sm_80", tokens=1):
        self.module = parse_module(make_context(), text, "<test>")
        scheduled = self.module.clone()
        options = {"target": "cuda", "isa": arch, "activations": "f16", "prefill": "f16"}
        options["tokens"] = tokens
        for stage in stages_between("operators", "scheduled"):
            run_passes(make_context(), scheduled, configure(build_pipeline(stage.passes), options))
        self.function = scheduled.body.block.first_op
        self.lowering = Lowering(find_arch(arch))
        names = [f"a{i}" for i in range(len(self.function.body.block.args))]
        self.results = self.lowering.call(self.function, names, "f")
        self.launches = self.lowering.program()

    @cached_property
    def images(self):
        """The kernels by name."""
        return self.lowering.compile()[0]

    def run(self, arguments, length):
        """Buffers by name after all launches; arguments: in order, None for a position."""
        memory = {
            one.name: np.full(one.bytes, 0 if "counters" in one.name else 0xFF, np.uint8)
            for one in self.lowering.buffers.values()
        }
        for i, one in enumerate(arguments):
            if one is not None:
                memory[f"a{i}"] = np.ascontiguousarray(one).view(np.uint8).reshape(-1)
        memory["lengths"] = np.array([length], np.int32).view(np.uint8)
        for launch in self.launches:
            image = self.images[launch.kernel]
            names = zip(image.parameters, launch.buffers, strict=True)
            report = simulate(image, {one.name: memory[name][: one.bytes] for one, name in names})
            report.check()
            assert not report.bank_conflicts or launch.kernel.startswith("lists")
        return memory

    def exact(self, *arguments):
        """What the reference gives."""
        return Interpreter(self.module).call("f", *arguments)


@pytest.fixture(scope="session")
def launches():
    """The class Launches."""
    return Launches
