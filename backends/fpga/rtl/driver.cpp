// Runs many cases on a processing element; DESIGN is the class that Verilator made.
//
// stdin: a header of u32 [cases, words of a, words of w, words of y], then for each case
// u32 [limit, beats of a, cycles of w, rows of y, pause, seed] and the words of
// a, of w, and of flags (a word a cycle).
// stdout: for each case u32 [status, cycles before the weights, cycles with weights, rows of y],
// then the words of y. pause: out of 256, how often an input is not valid; status 1: a timeout.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "verilated.h"

#define QUOTED(name) #name
#define HEADER(name) QUOTED(name.h)
#include HEADER(DESIGN)

template <typename T> static void put(T &port, const uint32_t *words) {
  std::memcpy(&port, words, sizeof(T));
}
template <> void put<CData>(CData &port, const uint32_t *words) { port = (CData)*words; }
template <> void put<SData>(SData &port, const uint32_t *words) { port = (SData)*words; }
template <> void put<QData>(QData &port, const uint32_t *words) {
  port = (QData)words[0] | (QData)words[1] << 32;
}
template <typename T> static void get(const T &port, uint32_t *words, size_t count) {
  std::memset(words, 0, 4 * count);
  std::memcpy(words, &port, sizeof(T) < 4 * count ? sizeof(T) : 4 * count);
}

static std::vector<uint32_t> receive(size_t count) {
  std::vector<uint32_t> words(count + 2);
  if (std::fread(words.data(), 4, count, stdin) != count) std::exit(3);
  return words;
}

static uint32_t state;
static bool pauses(uint32_t share) {
  state = state * 1664525u + 1013904223u;
  return (state >> 24) < share;
}

int main() {
  auto header = receive(4);
  const size_t a_words = header[1], w_words = header[2], y_words = header[3];
  for (uint32_t number = 0; number < header[0]; number++) {
    auto facts = receive(6);
    const uint32_t limit = facts[0], beats = facts[1], cycles = facts[2], share = facts[4];
    auto a = receive(beats * a_words), w = receive(cycles * w_words), flags = receive(cycles);
    state = facts[5];
    std::vector<uint32_t> y;
    VerilatedContext context;
    DESIGN dut(&context);
    auto tick = [&]() { dut.clk = 1; dut.eval(); dut.clk = 0; dut.eval(); };
    dut.clk = 0; dut.rst = 1; dut.a_valid = 0; dut.w_valid = 0; dut.w_flags = 0;
    dut.limit = limit;
    dut.eval();
    for (int i = 0; i < 64; i++) tick();
    dut.rst = 0;
    const uint64_t most = 1000 + 64ull * (beats * 64 + cycles);
    uint64_t at_a = 0, at_w = 0, started = 0, ended = 0, count = 0, now = 0;
    bool offers_w = false;
    for (; now < most && count < facts[3]; now++) {
      // An offer stays until it is taken.
      dut.a_valid = at_a < beats && (dut.a_valid || !pauses(share));
      offers_w = at_w < cycles && (offers_w || !pauses(share));
      dut.w_valid = offers_w;
      if (dut.a_valid) put(dut.a, &a[at_a * a_words]);
      if (offers_w) {
        put(dut.w, &w[at_w * w_words]);
        dut.w_flags = flags[at_w];
      }
      dut.eval();
      if (dut.y_valid) {
        y.resize(y.size() + y_words);
        get(dut.y, &y[y.size() - y_words], y_words);
        count++;
        ended = now;
      }
      const bool took_a = dut.a_valid && dut.a_take, took_w = dut.w_valid && dut.w_ready;
      if (took_w && at_w == 0) started = now;
      tick();
      if (took_a) { at_a++; dut.a_valid = 0; }
      if (took_w) { at_w++; offers_w = false; }
    }
    dut.final();
    const uint32_t answer[4] = {now >= most, (uint32_t)started, (uint32_t)(ended + 1 - started),
                                (uint32_t)count};
    std::fwrite(answer, 4, 4, stdout);
    std::fwrite(y.data(), 4, y.size(), stdout);
  }
  return 0;
}
