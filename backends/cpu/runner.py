"""The code that runs a plan, as a module of the llvm dialect: spin workers, barriers, calls.

`nybble_launch` runs an array of steps on thread 0 and wakes the others, which sit in
`nybble_worker`; between steps all threads meet at a barrier. Nothing here allocates or throws.

Control block (64-bit cells, each group on cache lines of its own, see the offsets below):
generation of the launch (a futex word), the launch record, the number of sleeping workers, and
one barrier flag per thread and round. The barrier is the dissemination barrier of Hensgen, Finkel
and Manber (1988): in round r thread t tells thread t + 2^r and waits for thread t - 2^r; flags hold
the number of the barrier, which only grows.

A step is four cells: function, array of its pointer arguments, their count, and whether a barrier
follows. The function is called as f(pointers..., n, pos, tid, nth).
"""

from dataclasses import dataclass

LINE = 128  # bytes: two cache lines, since neighbours are fetched in pairs
GENERATION = 0
RECORD = LINE
SLEEPERS = 2 * LINE
FLAGS = 3 * LINE
RECORD_CELLS = ("steps", "count", "n", "pos", "nth", "ticks", "epoch")
ROUNDS = 8
MAX_THREADS = 1 << ROUNDS
MAX_POINTERS = 32
STEP_CELLS = 4
QUIT = -1  # a step count that sends the workers home
EXTERNALS = ("sched_yield", "syscall")

# Spins of one pause each (15 to 140 cycles): then give the core to others, or go to sleep.
YIELD_AFTER = 1000
SLEEP_AFTER = 20000


@dataclass(frozen=True)
class Instructions:
    """What differs between architectures (source: Linux's and LLVM's tables).

    pause: an instruction for spin loops; ticks: intrinsic of a counter that a user may read;
    futex: number of the system call.
    """

    pause: str
    ticks: str
    futex: int


ARCHITECTURES = {
    "x86_64": Instructions(
        'llvm.call_intrinsic "llvm.x86.sse2.pause"() : () -> ()', "llvm.readcyclecounter", 202
    ),
    "aarch64": Instructions(
        "%hint = llvm.mlir.constant(1 : i32) : i32\n"
        '  llvm.call_intrinsic "llvm.aarch64.hint"(%hint) : (i32) -> ()',
        "llvm.readsteadycounter",
        98,
    ),
}


def control_bytes(threads: int) -> int:
    """Size of the control block of a pool of `threads`, in bytes."""
    return FLAGS + threads * ROUNDS * LINE


def runner_module(architecture: str) -> str:
    """The module's text, for upstream MLIR; architecture: a key of ARCHITECTURES."""
    arch = ARCHITECTURES[architecture]
    parts = (DECLARATIONS, _call_step(), _wait(arch), BARRIER, _run(arch), _worker(arch))
    return "\n".join((*parts, _launch(arch)))


DECLARATIONS = """
llvm.func @sched_yield() -> i32
llvm.func @syscall(i64, ...) -> i64
"""


def _cell(name: str) -> int:
    return RECORD + 8 * RECORD_CELLS.index(name)


def _load_cell(name: str, kind: str = "i64") -> str:
    return f"""  %{name}_at = llvm.getelementptr %ctl[{_cell(name)}] : (!llvm.ptr) -> !llvm.ptr, i8
  %{name} = llvm.load %{name}_at : !llvm.ptr -> {kind}"""


def _call_step() -> str:
    """@call_step: one call, by the number of its pointer arguments."""
    labels = ", ".join(f"{count}: ^call{count}" for count in range(MAX_POINTERS + 1))
    lines = [
        "llvm.func internal @call_step(%f: !llvm.ptr, %slots: !llvm.ptr, %count: i64, %n: i64, "
        "%pos: i64, %tid: i64, %nth: i64) {",
        f"  llvm.switch %count : i64, ^done [{labels}]",
    ]
    for count in range(MAX_POINTERS + 1):
        lines.append(f"^call{count}:")
        for i in range(count):
            lines.append(
                f"  %at{count}_{i} = llvm.getelementptr %slots[{i}] : (!llvm.ptr) -> !llvm.ptr, i64"
            )
            lines.append(f"  %p{count}_{i} = llvm.load %at{count}_{i} : !llvm.ptr -> !llvm.ptr")
        values = ", ".join([f"%p{count}_{i}" for i in range(count)] + ["%n, %pos, %tid, %nth"])
        types = ", ".join(["!llvm.ptr"] * count + ["i64"] * 4)
        lines += [f"  llvm.call %f({values}) : !llvm.ptr, ({types}) -> ()", "  llvm.br ^done"]
    return "\n".join([*lines, "^done:", "  llvm.return", "}"])


def _wait(arch: Instructions) -> str:
    """@nybble_wait: until the flag has reached `epoch`; spins, then yields the core."""
    return f"""
llvm.func @nybble_wait(%flag: !llvm.ptr, %epoch: i64) {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %limit = llvm.mlir.constant({YIELD_AFTER} : i64) : i64
  llvm.br ^look(%zero : i64)
^look(%spins: i64):
  %seen = llvm.load %flag atomic acquire {{alignment = 8 : i64}} : !llvm.ptr -> i64
  %there = llvm.icmp "sge" %seen, %epoch : i64
  llvm.cond_br %there, ^done, ^spin
^spin:
  {arch.pause}
  %more = llvm.add %spins, %one : i64
  %long = llvm.icmp "sgt" %more, %limit : i64
  llvm.cond_br %long, ^yield, ^look(%more : i64)
^yield:
  %ignored = llvm.call @sched_yield() : () -> i32
  llvm.br ^look(%limit : i64)
^done:
  llvm.return
}}"""


BARRIER = f"""
llvm.func internal @barrier(%ctl: !llvm.ptr, %tid: i64, %nth: i64, %epoch: i64) {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %line = llvm.mlir.constant({LINE} : i64) : i64
  %rounds = llvm.mlir.constant({ROUNDS} : i64) : i64
  %flags = llvm.getelementptr %ctl[{FLAGS}] : (!llvm.ptr) -> !llvm.ptr, i8
  llvm.br ^round(%one, %zero : i64, i64)
^round(%distance: i64, %r: i64):
  %more = llvm.icmp "slt" %distance, %nth : i64
  llvm.cond_br %more, ^meet, ^done
^meet:
  %sum = llvm.add %tid, %distance : i64
  %over = llvm.icmp "sge" %sum, %nth : i64
  %wrapped = llvm.sub %sum, %nth : i64
  %partner = llvm.select %over, %wrapped, %sum : i1, i64
  %partner_row = llvm.mul %partner, %rounds : i64
  %partner_cell = llvm.add %partner_row, %r : i64
  %partner_at = llvm.mul %partner_cell, %line : i64
  %theirs = llvm.getelementptr %flags[%partner_at] : (!llvm.ptr, i64) -> !llvm.ptr, i8
  llvm.store %epoch, %theirs atomic release {{alignment = 8 : i64}} : i64, !llvm.ptr
  %own_row = llvm.mul %tid, %rounds : i64
  %own_cell = llvm.add %own_row, %r : i64
  %own_at = llvm.mul %own_cell, %line : i64
  %own = llvm.getelementptr %flags[%own_at] : (!llvm.ptr, i64) -> !llvm.ptr, i8
  llvm.call @nybble_wait(%own, %epoch) : (!llvm.ptr, i64) -> ()
  %twice = llvm.add %distance, %distance : i64
  %next = llvm.add %r, %one : i64
  llvm.br ^round(%twice, %next : i64, i64)
^done:
  llvm.return
}}"""


def _run(arch: Instructions) -> str:
    """@run: all steps as thread `tid`; returns the number of barriers passed so far.

    Thread 0 writes the counter to ticks[0] at the start and to ticks[i + 1] after step i, if
    ticks is not null.
    """
    return f"""
llvm.func internal @run(%ctl: !llvm.ptr, %tid: i64, %start: i64) -> i64 {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %null = llvm.mlir.zero : !llvm.ptr
{_load_cell("steps", "!llvm.ptr")}
{_load_cell("count")}
{_load_cell("n")}
{_load_cell("pos")}
{_load_cell("nth")}
{_load_cell("ticks", "!llvm.ptr")}
  %timed = llvm.icmp "ne" %ticks, %null : !llvm.ptr
  %first = llvm.icmp "eq" %tid, %zero : i64
  %clock = llvm.and %timed, %first : i1
  llvm.cond_br %clock, ^stamp(%zero, %start : i64, i64), ^next(%zero, %start : i64, i64)
^stamp(%ti: i64, %te: i64):
  %now = llvm.call_intrinsic "{arch.ticks}"() : () -> i64
  %slot = llvm.getelementptr %ticks[%ti] : (!llvm.ptr, i64) -> !llvm.ptr, i64
  llvm.store %now, %slot : i64, !llvm.ptr
  llvm.br ^next(%ti, %te : i64, i64)
^next(%i: i64, %epoch: i64):
  %more = llvm.icmp "slt" %i, %count : i64
  llvm.cond_br %more, ^step, ^done
^step:
  %at = llvm.getelementptr %steps[%i, 0]
    : (!llvm.ptr, i64) -> !llvm.ptr, !llvm.array<{STEP_CELLS} x i64>
  %f = llvm.load %at : !llvm.ptr -> !llvm.ptr
  %slots_at = llvm.getelementptr %at[1] : (!llvm.ptr) -> !llvm.ptr, i64
  %slots = llvm.load %slots_at : !llvm.ptr -> !llvm.ptr
  %pointers_at = llvm.getelementptr %at[2] : (!llvm.ptr) -> !llvm.ptr, i64
  %pointers = llvm.load %pointers_at : !llvm.ptr -> i64
  %sync_at = llvm.getelementptr %at[3] : (!llvm.ptr) -> !llvm.ptr, i64
  %sync = llvm.load %sync_at : !llvm.ptr -> i64
  llvm.call @call_step(%f, %slots, %pointers, %n, %pos, %tid, %nth)
    : (!llvm.ptr, !llvm.ptr, i64, i64, i64, i64, i64) -> ()
  %index = llvm.add %i, %one : i64
  %meets = llvm.icmp "ne" %sync, %zero : i64
  llvm.cond_br %meets, ^meet, ^after(%epoch : i64)
^meet:
  %met = llvm.add %epoch, %one : i64
  llvm.call @barrier(%ctl, %tid, %nth, %met) : (!llvm.ptr, i64, i64, i64) -> ()
  llvm.br ^after(%met : i64)
^after(%passed: i64):
  llvm.cond_br %clock, ^stamp(%index, %passed : i64, i64), ^next(%index, %passed : i64, i64)
^done:
  llvm.return %epoch : i64
}}"""


def _futex(arch: Instructions, operation: int, value: str) -> str:
    return f"""  %number = llvm.mlir.constant({arch.futex} : i64) : i64
  %operation = llvm.mlir.constant({operation} : i64) : i64
  %status = llvm.call @syscall(%number, %ctl, %operation, {value}, %null)
    vararg(!llvm.func<i64 (i64, ...)>) : (i64, !llvm.ptr, i64, i64, !llvm.ptr) -> i64"""


def _worker(arch: Instructions) -> str:
    """@nybble_worker: runs every launch as thread `tid` until one says QUIT.

    An idle worker spins, then sleeps on the generation cell. It counts itself as a sleeper first
    and the kernel compares the generation again, so that a launch between the two is not missed.
    """
    return f"""
llvm.func @nybble_worker(%ctl: !llvm.ptr, %tid: i64) {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %minus = llvm.mlir.constant(-1 : i64) : i64
  %limit = llvm.mlir.constant({SLEEP_AFTER} : i64) : i64
  %null = llvm.mlir.zero : !llvm.ptr
  %sleepers = llvm.getelementptr %ctl[{SLEEPERS}] : (!llvm.ptr) -> !llvm.ptr, i8
  llvm.br ^look(%zero, %zero, %zero : i64, i64, i64)
^look(%last: i64, %spins: i64, %epoch: i64):
  %seen = llvm.load %ctl atomic seq_cst {{alignment = 8 : i64}} : !llvm.ptr -> i64
  %same = llvm.icmp "eq" %seen, %last : i64
  llvm.cond_br %same, ^spin, ^awake
^spin:
  {arch.pause}
  %more = llvm.add %spins, %one : i64
  %long = llvm.icmp "sgt" %more, %limit : i64
  llvm.cond_br %long, ^sleep, ^look(%last, %more, %epoch : i64, i64, i64)
^sleep:
  %before = llvm.atomicrmw add %sleepers, %one seq_cst : !llvm.ptr, i64
{_futex(arch, 128, "%last")}
  %after = llvm.atomicrmw add %sleepers, %minus seq_cst : !llvm.ptr, i64
  llvm.br ^look(%last, %zero, %epoch : i64, i64, i64)
^awake:
{_load_cell("count")}
  %quit = llvm.icmp "slt" %count, %zero : i64
  llvm.cond_br %quit, ^done, ^work
^work:
  %passed = llvm.call @run(%ctl, %tid, %epoch) : (!llvm.ptr, i64, i64) -> i64
  llvm.br ^look(%seen, %zero, %passed : i64, i64, i64)
^done:
  llvm.return
}}"""


def _launch(arch: Instructions) -> str:
    """@nybble_launch: runs `count` steps on all threads; returns when all of them are done.

    The last step must be followed by a barrier. QUIT as the count ends the workers.
    """
    stores = "\n".join(
        f"""  %{name}_at = llvm.getelementptr %ctl[{_cell(name)}] : (!llvm.ptr) -> !llvm.ptr, i8
  llvm.store %{name}, %{name}_at : {kind}, !llvm.ptr"""
        for name, kind in (
            ("steps", "!llvm.ptr"),
            ("count", "i64"),
            ("n", "i64"),
            ("pos", "i64"),
            ("nth", "i64"),
            ("ticks", "!llvm.ptr"),
        )
    )
    return f"""
llvm.func @nybble_launch(%ctl: !llvm.ptr, %steps: !llvm.ptr, %count: i64, %n: i64, %pos: i64,
                         %nth: i64, %ticks: !llvm.ptr) {{
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  %all = llvm.mlir.constant({MAX_THREADS} : i64) : i64
  %null = llvm.mlir.zero : !llvm.ptr
{stores}
  %before = llvm.atomicrmw add %ctl, %one seq_cst : !llvm.ptr, i64
  %sleepers = llvm.getelementptr %ctl[{SLEEPERS}] : (!llvm.ptr) -> !llvm.ptr, i8
  %asleep = llvm.load %sleepers atomic seq_cst {{alignment = 8 : i64}} : !llvm.ptr -> i64
  %any = llvm.icmp "sgt" %asleep, %zero : i64
  llvm.cond_br %any, ^wake, ^awake
^wake:
{_futex(arch, 129, "%all")}
  llvm.br ^awake
^awake:
  %quit = llvm.icmp "slt" %count, %zero : i64
  llvm.cond_br %quit, ^done, ^work
^work:
{_load_cell("epoch")}
  %passed = llvm.call @run(%ctl, %zero, %epoch) : (!llvm.ptr, i64, i64) -> i64
  llvm.store %passed, %epoch_at : i64, !llvm.ptr
  llvm.br ^done
^done:
  llvm.return
}}"""
