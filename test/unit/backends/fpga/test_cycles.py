"""Streams that count cycles find the faults that the vendor's cannot: seeded bugs, each found."""

import subprocess
from importlib.resources import files

import pytest

from nybble.backends.fpga.csim.build import compile_program
from nybble.backends.fpga.hls.emit import COMMON

PROGRAM = """
#include "nybble_hls.h"
#include <cstdlib>

typedef hls::stream<int> Stream;

static void produce(Stream& out, int count) {
  for (int i = 0; i < count; i++) { NYBBLE_CYCLE out.write(i); }
}
static void produce_first(Stream& first, Stream& second, int count) {
  for (int i = 0; i < count; i++) { NYBBLE_CYCLE first.write(i); }
  for (int i = 0; i < count; i++) { NYBBLE_CYCLE second.write(i); }
}
static void copy(Stream& in, Stream& out, int count) {
  for (int i = 0; i < count; i++) { NYBBLE_CYCLE out.write(in.read()); }
}
static void consume(Stream& in, int count) {
  for (int i = 0; i < count; i++) { NYBBLE_CYCLE if (in.read() != i) std::abort(); }
}
static void consume_slowly(Stream& in, int count) {
  for (int i = 0; i < 4 * count; i++) { NYBBLE_CYCLE if (i % 4 == 0) in.read(); }
}
static void consume_pairs(Stream& in, int count) {
  for (int i = 0; i < count / 2; i++) { NYBBLE_CYCLE in.read(); in.read(); }
}
static void consume_both(Stream& a, Stream& b, int count) {
  for (int i = 0; i < count; i++) { NYBBLE_CYCLE if (a.read() != b.read()) std::abort(); }
}

int main(int, char** argv) {
  const int depth = std::atoi(argv[2]), count = std::atoi(argv[3]);
  Stream a("a"), b("b"), c("c");
  NYBBLE_DEPTH(a, depth);
  NYBBLE_DEPTH(b, depth);
  switch (argv[1][0]) {
    case 'r':  // a chain of three
      NYBBLE_PROCESS("consumer", consume(b, count));
      NYBBLE_PROCESS("copier", copy(a, b, count));
      NYBBLE_PROCESS("producer", produce(a, count));
      break;
    case 's':
      NYBBLE_PROCESS("producer", produce(a, count));
      NYBBLE_PROCESS("consumer", consume_slowly(a, count));
      break;
    case 'd':  // the second stream is written when all of the first is, which does not fit
      NYBBLE_PROCESS("producer", produce_first(a, b, count));
      NYBBLE_PROCESS("consumer", consume_both(a, b, count));
      break;
    case 'e':
      NYBBLE_PROCESS("producer", produce(a, count - 1));
      NYBBLE_PROCESS("consumer", consume(a, count));
      break;
    case 'o':
      NYBBLE_PROCESS("producer", produce(a, count));
      NYBBLE_PROCESS("consumer", consume(a, count - 1));
      break;
    case 'i':
      NYBBLE_PROCESS("producer", produce(a, count));
      NYBBLE_PROCESS("consumer", consume_pairs(a, count));
      break;
    case 't':
      NYBBLE_PROCESS("producer", produce(a, count));
      NYBBLE_PROCESS("other", produce(a, count));
      NYBBLE_PROCESS("consumer", consume(a, count));
      break;
  }
  NYBBLE_DATAFLOW_END;
  std::printf("%ld", nybble::Simulator::get().cycles);
  return 0;
}
"""
FILL = 8
STUCK = "deadlock: producer writes 'a', which holds 4; consumer reads 'b', which is empty"


@pytest.fixture(scope="module")
def program(tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    header = files("nybble.backends.fpga.hls") / "templates" / COMMON
    (folder / COMMON).write_text(header.read_text())
    (folder / "main.cpp").write_text(PROGRAM)
    return compile_program(folder / "main.cpp", folder / "streams", counts=True)


def run(program, which, depth, count):
    done = subprocess.run(
        [program, which, str(depth), str(count)], capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.returncode == 0 else done.stderr.strip()


@pytest.mark.parametrize(("which", "depth", "count", "cycles"), [
    ("r", 32, 100, 3 * FILL + 99),  # each stage starts when the first word has come
    ("s", 32, 100, FILL + 399 + FILL),  # the slower one decides
    ("d", 100, 50, 49 + 50 + 2 * FILL),  # deep enough: b comes last
])  # fmt: skip
def test_cycles_of_a_sound_network(program, which, depth, count, cycles):
    assert run(program, which, depth, count) == pytest.approx(cycles, abs=3)


def test_a_shallow_fifo_holds_up_nobody_who_reads_each_cycle(program):
    """Words on their way through the writer's pipeline are in no FIFO yet."""
    assert run(program, "r", 2, 100) == run(program, "r", 32, 100)
    assert run(program, "s", 2, 100) == run(program, "s", 32, 100)


@pytest.mark.parametrize(("which", "depth", "count", "found"), [
    ("d", 4, 50, STUCK),
    ("e", 4, 50, "empty: consumer reads 'a', whose writer has ended"),
    ("o", 4, 50, "overflow: 1 word(s) left in 'a'"),
    ("i", 4, 50, "interval: consumer: 'a' is read twice in a cycle, which takes an interval of 2"),
    ("t", 4, 50, "'a' is written by producer and by other"),
])  # fmt: skip
def test_a_seeded_bug_is_found(program, which, depth, count, found):
    assert run(program, which, depth, count) == found
