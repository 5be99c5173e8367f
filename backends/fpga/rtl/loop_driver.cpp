// Runs many products on the circuit of a loop (`loops.py`); DESIGN is the class that Verilator made.
//
// stdin: a header of u32 [cases], then for each case u32 [count, step, low] and a word for each
// code and each activation. stdout: for each case u32 [status, cycles, sum]; status 1: a timeout.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "verilated.h"

#define QUOTED(name) #name
#define HEADER(name) QUOTED(name.h)
#include HEADER(DESIGN)

static std::vector<uint32_t> receive(size_t count) {
  std::vector<uint32_t> words(count);
  if (std::fread(words.data(), 4, count, stdin) != count) std::exit(3);
  return words;
}

// Memories that answer in the same cycle: an address is taken when its data is.
static void answer(DESIGN &dut, const std::vector<uint32_t> &w, const std::vector<uint32_t> &a) {
  for (int settle = 0; settle < 3; settle++) {
    dut.eval();
    dut.in0_ld0_data_valid = dut.in0_ld0_addr_valid;
    dut.in1_ld0_data_valid = dut.in1_ld0_addr_valid;
    dut.in0_ld0_addr_ready = dut.in0_ld0_data_ready;
    dut.in1_ld0_addr_ready = dut.in1_ld0_data_ready;
    dut.in0_ld0_data = dut.in0_ld0_addr < w.size() ? w[dut.in0_ld0_addr] : 0;
    dut.in1_ld0_data = dut.in1_ld0_addr < a.size() ? a[dut.in1_ld0_addr] : 0;
  }
  dut.eval();
}

int main() {
  const uint32_t cases = receive(1)[0];
  for (uint32_t number = 0; number < cases; number++) {
    const auto facts = receive(3), w = receive(facts[0]), a = receive(facts[0]);
    VerilatedContext context;
    DESIGN dut(&context);
    auto edge = [&]() { dut.clock = 1; dut.eval(); dut.clock = 0; dut.eval(); };
    dut.clock = 0; dut.reset = 1;
    dut.in2_valid = dut.in3_valid = dut.in4_valid = dut.in5_valid = 0;
    dut.out0_ready = dut.out1_ready = 1;
    dut.in2 = facts[0]; dut.in3 = facts[1]; dut.in4 = facts[2];
    dut.eval();
    for (int i = 0; i < 4; i++) edge();
    dut.reset = 0;
    dut.in2_valid = dut.in3_valid = dut.in4_valid = dut.in5_valid = 1;
    const uint32_t most = 1000 + 64 * facts[0];
    uint32_t now = 0;
    for (; now < most; now++) {
      answer(dut, w, a);
      if (dut.out0_valid) break;
      // An argument is given once.
      const bool took2 = dut.in2_ready, took3 = dut.in3_ready, took4 = dut.in4_ready,
                 took5 = dut.in5_ready;
      edge();
      if (took2) dut.in2_valid = 0;
      if (took3) dut.in3_valid = 0;
      if (took4) dut.in4_valid = 0;
      if (took5) dut.in5_valid = 0;
    }
    dut.final();
    const uint32_t answer[3] = {now >= most, now, (uint32_t)dut.out0};
    std::fwrite(answer, 4, 3, stdout);
  }
  return 0;
}
