// A plugin of qemu's user mode (API 1, qemu 7.2) that writes what a program of one hart does as
// events of 16 bytes, and totals to standard error. Debian does not ship the plugin header, so what
// is used of it is declared here. Options are numbers in hexadecimal; see trace.py.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_memory)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *);
typedef void (*on_execution)(unsigned, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);
extern unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, on_memory, int, int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, on_execution, int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_atexit_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum kind { NEAR, LOAD, STORE, DMA, TASK, BARRIER, PART };
enum access { PLAIN, POSTED, UPDATE, RESERVE, CONDITIONAL, COPY };
enum { ARRAYS = 11, BATCH = 64, BUFFER = 1 << 16, PARTS = 64, MOST_BUFFERED = 64 };
struct event { uint32_t instructions; uint16_t waits, posts; uint32_t bytes; uint16_t kind, line; };
struct range { uint64_t start, end; };

static struct range kernel, barrier, dma, near_, rows, values, staged, keys, arrays[ARRAYS];
static uint64_t line_bytes, flat, last_line[ARRAYS], last_part = PARTS;
static uint64_t buffered, stores[MOST_BUFFERED], stored;
static uint64_t instructions, counted, pending_dma;
static uint64_t products, probes, tasks, far_bytes, waits_total, posts_total;
static uint32_t waits, posts, row_loads;
static bool in_task, in_dma;
static FILE *out;
static struct event buffer[BUFFER];
static size_t filled;

static bool in(struct range r, uint64_t a) { return a >= r.start && a < r.end; }

static void emit(enum kind kind, uint64_t bytes, uint64_t line) {
  struct event e = {(uint32_t)(instructions - counted), (uint16_t)waits, (uint16_t)posts,
                    (uint32_t)bytes, (uint16_t)kind, (uint16_t)line};
  counted = instructions;
  waits_total += waits; posts_total += posts; far_bytes += bytes;
  waits = posts = 0;
  buffer[filled++] = e;
  if (filled == BUFFER) { fwrite(buffer, sizeof *buffer, filled, out); filled = 0; }
}

static void end_dma(void) {
  if (in_dma && pending_dma) emit(DMA, pending_dma, 0);
  in_dma = false; pending_dma = 0;
}

static void near_access(bool waited) {
  if (waited) waits++; else posts++;
  if (waits + posts >= BATCH) emit(NEAR, 0, 0);
}

// Whether a load is of what one of the last stores wrote, which a store buffer still has.
static bool forwarded(bool store, uint64_t address) {
  if (store && buffered) stores[stored++ % buffered] = address;
  for (uint64_t i = 0; !store && i < buffered; i++)
    if (stores[i] == address) return true;
  return false;
}

static void far_access(bool store, uint64_t address, uint64_t size) {
  if (!line_bytes) { if (!forwarded(store, address)) emit(store ? STORE : LOAD, size, address >> 6); return; }
  for (int i = 0; i < ARRAYS; i++)
    if (in(arrays[i], address)) {
      uint64_t line = address / line_bytes;
      if (last_line[i] != line) { last_line[i] = line; emit(store ? STORE : LOAD, line_bytes, line); }
      return;
    }
}

// Outside of rows, the slots of an accumulator are shared out: a new part of them may be another's.
static void at_slot(uint64_t address) {
  uint64_t part = (address - keys.start) * PARTS / (keys.end - keys.start);
  if (part != last_part) { last_part = part; emit(PART, 0, 0); }
}

static void memory(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
  enum access access = (enum access)(uintptr_t)data;
  bool store = qemu_plugin_mem_is_store(info);
  uint64_t size = 1ull << qemu_plugin_mem_size_shift(info);
  (void)cpu;
  if (access == COPY) {  // a copy has one side in memory that is far
    if (!flat) { if (!in(near_, address)) pending_dma += size; }
    else far_access(store, address, size);
    return;
  }
  end_dma();
  if (access == CONDITIONAL || (access != PLAIN && store)) return;  // its first half is counted
  if (!store && access == PLAIN) {
    if (in(values, address) || in(staged, address)) products++;
    if (in_task && in(keys, address)) probes++;
    if (in(rows, address) && row_loads++ % 2 == 0) { tasks++; in_task = true; emit(TASK, 0, 0); }
  }
  if (!in_task && in(keys, address)) at_slot(address);
  bool far = false;
  for (int i = 0; i < ARRAYS; i++) far |= in(arrays[i], address);
  if (flat) { far_access(store, address, size); return; }
  if (far) far_access(store, address, size);
  else if (in(near_, address) || access != PLAIN) near_access(!store && access != POSTED);
}

static void at_barrier(unsigned cpu, void *data) {
  (void)cpu; (void)data;
  end_dma();
  in_task = false; row_loads = 0; last_part = PARTS;
  memset(last_line, 0, sizeof last_line);
  emit(BARRIER, 0, 0);
}

static void at_dma(unsigned cpu, void *data) { (void)cpu; (void)data; end_dma(); in_dma = true; }

static enum access access_of(uint32_t word) {
  if ((word & 0x7f) != 0x2f) return PLAIN;
  uint32_t function = word >> 27;
  if (function == 2) return RESERVE;
  if (function == 3) return CONDITIONAL;
  return (word >> 7 & 31) ? UPDATE : POSTED;  // nobody waits for a result that nobody reads
}

static void block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    uint64_t pc = qemu_plugin_insn_vaddr(insn);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
    if (pc == barrier.start) qemu_plugin_register_vcpu_insn_exec_cb(insn, at_barrier, 0, NULL);
    if (pc == dma.start) qemu_plugin_register_vcpu_insn_exec_cb(insn, at_dma, 0, NULL);
    bool copy = in(dma, pc);
    if (!in(kernel, pc) && !copy) continue;
    if (!copy || flat) qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &instructions, 1);
    uintptr_t access = copy ? COPY : access_of(word);
    qemu_plugin_register_vcpu_mem_cb(insn, memory, 0, 3, (void *)access);
  }
}

static void finish(qemu_plugin_id_t id, void *data) {
  (void)id; (void)data;
  end_dma();
  fwrite(buffer, sizeof *buffer, filled, out);
  fclose(out);
  fprintf(stderr, "instructions %lu waits %lu posts %lu bytes %lu products %lu probes %lu tasks %lu\n",
          counted, waits_total, posts_total, far_bytes, products, probes, tasks);
}

static struct range pair(const char **at) {
  struct range r;
  r.start = strtoull(*at, (char **)at, 16); (*at)++;
  r.end = strtoull(*at, (char **)at, 16); (*at)++;
  return r;
}

// path=FILE, line=N, flat=N, ranges=START-END-START-END..: the ranges in the order of their
// declaration
__attribute__((visibility("default"))) int qemu_plugin_install(
    qemu_plugin_id_t id, const qemu_info_t *info, int count, char **given) {
  (void)info;
  for (int i = 0; i < count; i++) {
    const char *value = strchr(given[i], '=');
    if (!value++) return 1;
    if (!strncmp(given[i], "path", 4)) out = fopen(value, "wb");
    else if (!strncmp(given[i], "line", 4)) line_bytes = strtoull(value, NULL, 16);
    else if (!strncmp(given[i], "buffered", 8)) buffered = strtoull(value, NULL, 16) % MOST_BUFFERED;
    else if (!strncmp(given[i], "flat", 4)) flat = strtoull(value, NULL, 16);
    else {
      struct range *each[] = {&kernel, &barrier, &dma, &near_, &rows, &values, &staged, &keys};
      for (size_t k = 0; k < sizeof each / sizeof *each; k++) *each[k] = pair(&value);
      for (int k = 0; k < ARRAYS; k++) arrays[k] = pair(&value);
    }
  }
  if (!out) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, block);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
