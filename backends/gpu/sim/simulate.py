"""Runs a kernel on numpy arrays: the entrance of the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.sim.actions import program
from nybble.backends.gpu.sim.arguments import Arguments, Placed, place_arguments
from nybble.backends.gpu.sim.findings import Findings, Kind
from nybble.backends.gpu.sim.grain import global_grain, shared_grain, uses_async
from nybble.backends.gpu.sim.grid import Grid, Triple, volume
from nybble.backends.gpu.sim.lanes import Action, Lanes
from nybble.backends.gpu.sim.machine import Machine
from nybble.backends.gpu.sim.memory import GlobalLayout, GlobalMemory, PrivateMemory, SharedMemory
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.parser import parse
from nybble.backends.gpu.sim.profile import Profile
from nybble.backends.gpu.sim.ptx import Entry, Module
from nybble.backends.gpu.sim.registers import RegisterFile
from nybble.backends.gpu.sim.report import Report, by_class, by_line
from nybble.backends.gpu.sim.shadow import Reporter
from nybble.backends.gpu.sim.symbols import Symbols, lay_out
from nybble.backends.gpu.sim.sync import BlockSync
from nybble.backends.gpu.sim.threads import Threads
from nybble.dialects.errors import LimitError, NybbleError

_BATCH_THREADS = 1 << 14
_MOST_THREADS_OF_A_BLOCK = 1024
_MOST_SHARED = 232448
"""Bytes of shared memory of a block of sm_90, the most of any architecture."""


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched, as in CUDA, x first. shared: bytes of dynamic shared memory."""

    grid: Triple = (1, 1, 1)
    block: Triple = (1, 1, 1)
    shared: int = 0
    cluster: Triple = (1, 1, 1)

    def __post_init__(self) -> None:
        if min(*self.block, *self.cluster) < 1 or min(self.grid) < 0:
            raise NybbleError(f"a launch of grid {self.grid} and block {self.block}")
        if volume(self.block) > _MOST_THREADS_OF_A_BLOCK:
            limit = f"at most {_MOST_THREADS_OF_A_BLOCK}"
            raise NybbleError(f"{volume(self.block)} threads in a block", accepted=limit)
        if any(n % c for n, c in zip(self.grid, self.cluster, strict=True)):
            raise NybbleError(f"a grid of {self.grid} in clusters of {self.cluster}")


@dataclass(frozen=True)
class Options:
    """What is checked and counted.

    checks: kinds of findings to look for. strict: raise SimulationError if there are any. counts:
    whether to count wavefronts and sectors. resident: threads that run at the same time, by whole
    blocks; later blocks begin when they have ended. limit: thread instructions after which to
    give up.
    """

    checks: frozenset[Kind] = frozenset(Kind)
    strict: bool = True
    counts: bool = True
    resident: int = _BATCH_THREADS
    limit: int = 20_000_000_000


@dataclass
class _Run:
    """One launch. visits, warps: by index of the instruction, threads and warps that did it."""

    module: Module
    entry: Entry
    launch: Launch
    options: Options
    symbols: Symbols
    placed: Placed
    memory: GlobalMemory
    findings: Findings
    profile: Profile
    sync: BlockSync
    visits: list[int] = field(default_factory=list[int])
    warps: list[int] = field(default_factory=list[int])
    mma: Counter[str] = field(default_factory=Counter[str])
    log: list[int] = field(default_factory=lambda: [0])

    def batch(self, first: int, blocks: int) -> None:
        """Run some blocks."""
        machine = self.machine(first, blocks)
        actions = program(machine, self.module.file)
        self.execute(machine, actions)
        self.mma += machine.mma

    def machine(self, first: int, blocks: int) -> Machine:
        """The state that blocks begin with."""
        entry, symbols = self.entry, self.symbols
        grid = Grid(self.launch.grid, self.launch.block, self.launch.cluster, first, blocks)
        order = Order(grid, self.log, asynchronous=uses_async(entry))
        reporter = Reporter(self.findings, order, [one.line for one in entry.instructions])
        size = symbols.shared + self.launch.shared
        shared = SharedMemory(grid, size, shared_grain(entry), reporter)
        local = PrivateMemory(grid, symbols.local, "local")
        parameters = PrivateMemory(grid, len(self.placed.block), "parameter", shared_by_all=True)
        parameters.bytes.data[: len(self.placed.block)] = self.placed.block
        local.reporter = parameters.reporter = self.memory.reporter = reporter
        self.memory.shadow.begin(order, reporter, volume(self.launch.grid))
        self.sync.begin(order, self.memory.shadow)
        return Machine(
            entry,
            grid,
            order,
            reporter,
            RegisterFile(entry.registers, grid.threads),
            self.memory,
            shared,
            local,
            parameters,
            symbols.addresses,
            self.profile,
            self.sync,
            Threads(order, reporter),
            self.placed.maps,
            self.launch.shared,
        )

    def execute(self, machine: Machine, actions: list[Action]) -> None:
        """Run until all threads have ended, the lowest instruction first."""
        threads = machine.threads
        end = len(actions)
        while True:
            if not threads.ready:
                if threads.wake(machine.events):
                    continue
                threads.stuck()
                return
            pc = min(threads.ready)
            lanes = threads.ready.pop(pc)
            stop = min(threads.ready, default=end)
            if pc >= end:
                threads.end(lanes)
                continue
            warps = len(lanes.warps)
            while True:
                self.visits[pc] += lanes.size
                self.warps[pc] += warps
                flow = actions[pc](lanes)
                pc += 1
                if flow is not None or machine.polled is not None or not pc < stop:
                    break
            if machine.polled is not None:
                flow = self._rest(machine, pc, [(pc, lanes)] if flow is None else flow)
            for target, some in [(pc, lanes)] if flow is None else flow:
                threads.add(target, some)
            if sum(self.visits) > self.options.limit:
                raise LimitError(f"more than {self.options.limit} instructions of threads")

    @staticmethod
    def _rest(machine: Machine, pc: int, flow: list[tuple[int, Lanes]]) -> list[tuple[int, Lanes]]:
        """Let the threads that polled something rest; where the others go."""
        polled, machine.polled = machine.polled, None
        assert polled is not None
        machine.threads.rest(pc, polled)
        others: list[tuple[int, Lanes]] = []
        for target, some in flow:
            mask = np.isin(some.numbers, polled.numbers, assume_unique=True)
            others.append((target, some.where(~mask)))
        return others

    def report(self) -> Report:
        """What there is to tell."""
        entry = self.entry
        names = [str(one) for one in entry.instructions]
        lines = [one.line for one in entry.instructions]
        opcodes: Counter[str] = Counter()
        for name, count in zip(names, self.visits, strict=True):
            if count:
                opcodes[name] += count
        blocks = volume(self.launch.grid)
        return Report(
            entry.name,
            self.module.target,
            self.launch.grid,
            self.launch.block,
            blocks,
            blocks * volume(self.launch.block),
            sum(self.visits),
            sum(self.warps),
            by_class(opcodes),
            dict(opcodes.most_common()),
            dict(self.mma),
            by_line(self.profile.shared, lines, names),
            by_line(self.profile.globals, lines, names),
            self._unwritten(),
            self.findings.listed(),
        )

    def _unwritten(self) -> dict[str, int]:
        shadow = self.memory.shadow
        made: dict[str, int] = {}
        for one in self.memory.layout.buffers:
            if one.output:
                cells = slice(one.start // shadow.grain, (one.start + one.size) // shadow.grain)
                made[one.name] = int(shadow.undefined[cells].sum()) * shadow.grain
        return made


def simulate(
    kernel: KernelImage | str | Module,
    arguments: Arguments,
    launch: Launch | None = None,
    *,
    entry: str | None = None,
    options: Options = Options(),
) -> Report:
    """Run a kernel on arrays, which it changes in place, and tell what was wrong and what it cost.

    kernel: an image, or PTX (text or parsed) with a launch. arguments: by name, or in order; a
    pointer takes a contiguous array of any type that has its bytes, a tensor map a `TensorMap`,
    anything else a number. entry: of PTX, the kernel; its only one by default.

    Raises PtxError for what cannot be read or is not modelled, NybbleError for arguments that do
    not fit, and SimulationError for findings if the options are strict.
    """
    image = kernel if isinstance(kernel, KernelImage) else None
    if isinstance(kernel, KernelImage):
        launch = launch or Launch(kernel.grid, kernel.block, kernel.shared, kernel.cluster)
        entry = kernel.name
        kernel = kernel.ptx
    if launch is None:
        raise NybbleError("PTX needs a launch", accepted="a grid and a block")
    module = parse(kernel) if isinstance(kernel, str) else kernel
    run = _prepare(module, module.entry(entry), arguments, launch, options, image)
    with np.errstate(all="ignore"):
        _run_batches(run)
    for number, array in run.placed.arrays.items():
        if not run.memory.layout.buffers[number].read_only:
            array.reshape(-1).view(np.uint8)[:] = run.memory.view(number)
    report = run.report()
    if options.strict:
        report.check()
    return report


def _prepare(
    module: Module,
    entry: Entry,
    arguments: Arguments,
    launch: Launch,
    options: Options,
    image: KernelImage | None,
) -> _Run:
    layout = GlobalLayout()
    symbols = lay_out(module, entry, layout)
    if symbols.shared + launch.shared > _MOST_SHARED:
        size = symbols.shared + launch.shared
        raise NybbleError(f"{size} bytes of shared memory", accepted=f"at most {_MOST_SHARED}")
    placed = place_arguments(entry, symbols, layout, arguments, image)
    memory = GlobalMemory(layout, global_grain(entry))
    for number, initial in symbols.constants.items():
        memory.view(number)[:] = np.frombuffer(initial, np.uint8)
    for number, array in placed.arrays.items():
        memory.view(number)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    count = len(entry.instructions)
    return _Run(
        module,
        entry,
        launch,
        options,
        symbols,
        placed,
        memory,
        Findings(options.checks),
        Profile(options.counts),
        BlockSync(volume(launch.grid)),
        [0] * count,
        [0] * count,
    )


def _run_batches(run: _Run) -> None:
    blocks = volume(run.launch.grid)
    cluster = volume(run.launch.cluster)
    each = -(-volume(run.launch.block) // 32) * 32
    size = max(run.options.resident // each // cluster, 1) * cluster
    for first in range(0, blocks, size):
        run.batch(first, min(size, blocks - first))
