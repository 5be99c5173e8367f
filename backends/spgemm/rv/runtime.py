"""The runtime of harts in assembly: start, barrier, DMA and report; and the layout of memory.

One file runs in two ways. As a program of a machine every hart starts at `_start` without a stack;
as a process (under qemu's user mode) one thread does, with a stack, and makes the others.
"""

from nybble.backends.spgemm.problem import PROBLEM, Meeting, Word

MOST_HARTS = 64
STACK_BITS = 14
TEXT = 0x8000_0000
DMA_BASE = 0x6000_0000
"""Address of the DMA descriptors, one for each hart."""
DMA_BYTES = 64
SYSCALL = {"write": 64, "exit": 93, "exit_group": 94, "sched_yield": 124, "clone": 220}
"""Linux's numbers on RISC-V."""
CLONE_THREAD = 0x50F00
"""CLONE_VM, FS, FILES, SIGHAND, THREAD and SYSVSEM: a thread of this process."""

LINKER_SCRIPT = f"""OUTPUT_ARCH("riscv")
ENTRY(_start)
PHDRS {{ text PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); problem PT_NULL; }}
SECTIONS {{
  . = {TEXT:#x};
  .text : {{ *(.text.init) *(.text*) }} :text
  . = ALIGN(4096);
  .data : {{ *(.htif) *(.rodata*) *(.srodata*) *(.data*) *(.sdata*) }} :data
  .bss : {{ *(.sbss*) *(.bss*) *(COMMON) }} :data
  ASSERT(. <= {PROBLEM:#x}, "code and stacks reach into the problem")
  /DISCARD/ : {{ *(.riscv.attributes) *(.comment) *(.note*) *(.eh_frame*) }}
}}
"""

_START = f"""
    .section .text.init, "ax"
    .globl _start
_start:
    li      s1, {PROBLEM:#x}
    ld      s2, {8 * Word.HARTS}(s1)
    bnez    sp, process
    csrr    s0, mhartid
    li      t0, 3 << 13                 # mstatus.FS: floating point on
    csrs    mstatus, t0
    blt     s0, s2, hart
park:
    wfi
    j       park

process:                                # hart 0 makes the others
    la      t0, is_process
    li      t1, 1
    sd      t1, 0(t0)
    li      s0, 1
1:  bge     s0, s2, 2f
    call    stack_of
    mv      a1, a0
    li      a0, {CLONE_THREAD:#x}
    li      a2, 0
    li      a3, 0
    li      a4, 0
    li      a7, {SYSCALL["clone"]}
    ecall
    beqz    a0, hart
    bltz    a0, failed
    addi    s0, s0, 1
    j       1b
2:  li      s0, 0

hart:                                   # s0: number; s1: descriptor; s2: harts
    call    stack_of
    mv      sp, a0
    mv      a0, s1
    mv      a1, s0
    mv      a2, s2
    call    nybble_kernel
    ld      a0, {8 * Word.SYNC}(s1)
    mv      a1, s2
    call    nybble_barrier
    bnez    s0, rest
    call    report
    li      a0, 0
    j       leave
rest:
    la      t0, is_process
    ld      t0, 0(t0)
    beqz    t0, park
    li      a0, 0
    li      a7, {SYSCALL["exit"]}
    ecall
failed:
    li      a0, 1
leave:                                  # a0: exit code
    la      t0, is_process
    ld      t0, 0(t0)
    beqz    t0, 1f
    li      a7, {SYSCALL["exit_group"]}
    ecall
1:  slli    a0, a0, 1
    ori     a0, a0, 1
    la      t0, tohost
    fence
    sd      a0, 0(t0)
    j       park

stack_of:                               # a0 = top of the stack of hart s0
    la      a0, stacks
    addi    t0, s0, 1
    slli    t0, t0, {STACK_BITS}
    add     a0, a0, t0
    ret
"""

_REPORT = f"""
report:                                 # descriptor, keys and values to file 1
    ld      t0, {8 * Word.REPORT}(s1)
    bnez    t0, 1f
    ret
1:  mv      s3, ra
    mv      a1, s1
    li      a2, {8 * Word.COUNT}
    call    write
    ld      s4, {8 * Word.OUT_COUNT}(s1)
    ld      a1, {8 * Word.OUT_KEYS}(s1)
    slli    a2, s4, 3
    call    write
    ld      a1, {8 * Word.OUT_VALUES}(s1)
    ld      a2, {8 * Word.ELEMENT_BYTES}(s1)
    mul     a2, a2, s4
    mv      ra, s3
write:                                  # a1: address; a2: bytes
    blez    a2, 3f
    li      a0, 1
    la      t0, is_process
    ld      t0, 0(t0)
    beqz    t0, 1f
    li      a7, {SYSCALL["write"]}
    ecall
    blez    a0, failed
    add     a1, a1, a0
    sub     a2, a2, a0
    j       write
1:  la      t0, request                 # a system call of the host-target interface
    li      t1, {SYSCALL["write"]}
    sd      t1, 0(t0)
    sd      a0, 8(t0)
    sd      a1, 16(t0)
    sd      a2, 24(t0)
    fence
    la      t1, tohost
    sd      t0, 0(t1)
    la      t1, fromhost
2:  ld      t2, 0(t1)
    beqz    t2, 2b
    sd      zero, 0(t1)
3:  ret
"""

_BARRIER = f"""
    .globl nybble_barrier
nybble_barrier:                         # a0: words of Meeting; a1: harts
    fence   rw, rw
    ld      t0, {8 * Meeting.GENERATION}(a0)
    li      t1, 1
    addi    t2, a0, {8 * Meeting.BARRIER}
    amoadd.d.aqrl t3, t1, (t2)
    addi    t3, t3, 1
    bne     t3, a1, 1f
    sd      zero, 0(t2)
    fence   rw, rw
    addi    t0, t0, 1
    sd      t0, {8 * Meeting.GENERATION}(a0)
    j       3f
1:  mv      t4, a0
    mv      t5, ra
2:  ld      t1, {8 * Meeting.GENERATION}(t4)
    bne     t1, t0, 4f
    call    nybble_relax
    j       2b
4:  mv      ra, t5
3:  fence   rw, rw
    ret
    .globl nybble_barrier_end
nybble_barrier_end:

    .globl nybble_relax
nybble_relax:                           # keeps t0, t4 and t5
    la      t1, is_process
    ld      t1, 0(t1)
    beqz    t1, 1f
    li      a7, {SYSCALL["sched_yield"]}
    ecall
1:  ret
"""

_COPY = """
    .globl nybble_dma
nybble_dma:                             # two copies: a0: target; a1: source; a2: bytes; a3 to a5
    li      t2, 1
0:  blez    a2, 3f
    or      t0, a0, a1
    or      t0, t0, a2
    andi    t0, t0, 7
    add     a2, a2, a1
    bnez    t0, 2f
1:  ld      t1, 0(a1)
    sd      t1, 0(a0)
    addi    a1, a1, 8
    addi    a0, a0, 8
    bltu    a1, a2, 1b
    j       3f
2:  lw      t1, 0(a1)
    sw      t1, 0(a0)
    addi    a1, a1, 4
    addi    a0, a0, 4
    bltu    a1, a2, 2b
3:  beqz    t2, 4f
    li      t2, 0
    mv      a0, a3
    mv      a1, a4
    mv      a2, a5
    j       0b
4:  ret
    .globl nybble_dma_end
nybble_dma_end:
"""

_ENGINE = """
    .globl nybble_dma
nybble_dma:                             # as above; a6: address of this hart's DMA descriptor
    fence   rw, rw
    sd      a1, 0(a6)
    sd      a0, 8(a6)
    sd      a2, 16(a6)
    sd      a4, 32(a6)
    sd      a3, 40(a6)
    sd      a5, 48(a6)
    li      t1, 1
    sd      t1, 24(a6)
1:  ld      t1, 24(a6)
    bnez    t1, 1b
    fence   rw, rw
    ret
    .globl nybble_dma_end
nybble_dma_end:
"""

_DATA = f"""
    .section .htif, "aw"
    .align  6
    .globl  tohost
tohost: .dword 0
    .align  6
    .globl  fromhost
fromhost: .dword 0
    .align  6
request: .dword 0, 0, 0, 0, 0, 0, 0, 0
is_process: .dword 0
    .bss
    .align  12
stacks: .skip {MOST_HARTS << STACK_BITS}
"""


def runtime(engine: bool) -> str:
    """The runtime's assembly. engine: whether DMA is a device's work, not a loop of the hart's."""
    return "".join((_START, _REPORT, ".text", _BARRIER, _ENGINE if engine else _COPY, _DATA))
