// Timing of traced events on barrel pipelines with a scratchpad, DMA and memory channels.
// Threads take turns by their clocks; each event occupies a pipeline, then scratchpad ports, then a
// channel of memory. See timing.py for the parameters and what comes out.
#include <math.h>
#include <stdint.h>
#include <string.h>

enum kind { NEAR, LOAD, STORE, DMA, TASK, BARRIER, PART };
enum { MOST_THREADS = 1024, MOST_CHANNELS = 64, PHASES = 3 };
struct event { uint32_t instructions; uint16_t waits, posts; uint32_t bytes; uint16_t kind, line; };
struct machine {
  int64_t pipes, threads, channels, tokens;
  double gap, near_latency, near_ports, far_latency, far_bytes, queue, dma_instructions, barrier;
};
struct sums {
  double cycles, phase_cycles[PHASES], phase_instructions[PHASES], phase_bytes[PHASES];
  double instructions, waits, posts, bytes, idle;
};

static double now[MOST_THREADS], pipe_free[MOST_THREADS], channel_free[MOST_CHANNELS], near_free;

static double far(const struct machine *m, double at, double bytes, int first, int count) {
  double share = bytes / count, speed = m->far_bytes / m->channels, last = at;
  for (int i = 0; i < count; i++) {
    double *free = &channel_free[(first + i) % m->channels];
    double start = fmax(at, *free);
    *free = start + share / speed;
    last = fmax(last, *free);
  }
  return last;
}

static void step(const struct machine *m, int t, const struct event *e) {
  double issued = e->instructions + (e->kind == DMA ? m->dma_instructions : 0);
  double *pipe = &pipe_free[t % m->pipes];
  double start = fmax(now[t], *pipe);
  *pipe = start + issued;
  double done = fmax(start + issued, now[t] + issued * m->gap);
  if (e->waits + e->posts) {
    double served = fmax(done, near_free) + (e->waits + e->posts) / m->near_ports;
    near_free = fmax(near_free, done) + (e->waits + e->posts) / m->near_ports;
    done = fmax(done + e->waits * m->near_latency, served);
  }
  int channel = e->line % m->channels;
  if (e->kind == LOAD) done = far(m, done, e->bytes, channel, 1) + m->far_latency;
  else if (e->kind == DMA) done = far(m, done, e->bytes, 0, (int)m->channels) + m->far_latency;
  else if (e->kind == STORE) done = fmax(done, far(m, done, e->bytes, channel, 1) - m->queue);
  now[t] = done;
}

// Threads in the order of their clocks, those of lower numbers first: a heap.
struct turns { int64_t count; int thread[MOST_THREADS]; };

static int earlier(int a, int b) { return now[a] < now[b] || (now[a] == now[b] && a < b); }

static void sink(struct turns *q, int64_t at) {
  int moving = q->thread[at];
  for (int64_t child; (child = 2 * at + 1) < q->count; at = child) {
    if (child + 1 < q->count && earlier(q->thread[child + 1], q->thread[child])) child++;
    if (!earlier(q->thread[child], moving)) break;
    q->thread[at] = q->thread[child];
  }
  q->thread[at] = moving;
}

static void everyone(struct turns *q, const struct machine *m) {
  q->count = m->threads;
  for (int t = 0; t < m->threads; t++) q->thread[t] = t;
  for (int64_t at = q->count / 2; at-- > 0;) sink(q, at);
}

// The thread whose clock is first has no more to do.
static void leave(struct turns *q) {
  q->thread[0] = q->thread[--q->count];
  if (q->count) sink(q, 0);
}

// Rows of a phase: from `starts[k]` to `starts[k + 1]`; threads take the next one, or each H-th.
static void rows(const struct machine *m, const struct event *e, const int64_t *starts, int64_t count) {
  int64_t at[MOST_THREADS] = {0}, end[MOST_THREADS] = {0}, next[MOST_THREADS], token = 0;
  struct turns q;
  for (int t = 0; t < m->threads; t++) next[t] = t;
  for (everyone(&q, m); q.count;) {
    int t = q.thread[0];
    if (at[t] >= end[t]) {
      int64_t row = m->tokens ? token : next[t];
      if (row >= count) { leave(&q); continue; }
      token++; next[t] += m->threads;
      at[t] = starts[row]; end[t] = starts[row + 1];
    }
    step(m, t, &e[at[t]++]);
    sink(&q, 0);
  }
}

// A phase without rows, its parts shared out in order.
static void shares(const struct machine *m, const struct event *e, const int64_t *starts, int64_t count) {
  int64_t at[MOST_THREADS], end[MOST_THREADS];
  for (int64_t t = 0; t < m->threads; t++) {
    at[t] = starts[t * count / m->threads];
    end[t] = starts[(t + 1) * count / m->threads];
  }
  struct turns q;
  for (everyone(&q, m); q.count;) {
    int t = q.thread[0];
    if (at[t] >= end[t]) { leave(&q); continue; }
    step(m, t, &e[at[t]++]);
    sink(&q, 0);
  }
}

static void meet(const struct machine *m, struct sums *s) {
  double last = 0;
  for (int t = 0; t < m->threads; t++) last = fmax(last, now[t]);
  for (int t = 0; t < m->threads; t++) { s->idle += last - now[t]; now[t] = last + m->barrier; }
}

// Simulates `count` events; `starts` is room for as many numbers.
void simulate(const struct machine *m, const struct event *e, int64_t count, int64_t *starts,
              struct sums *s) {
  memset(s, 0, sizeof *s);
  memset(now, 0, sizeof now); memset(pipe_free, 0, sizeof pipe_free);
  memset(channel_free, 0, sizeof channel_free); near_free = 0;
  double before = 0;
  int64_t seen_rows = 0;
  for (int64_t first = 0; first < count;) {
    int64_t last = first, found = 0, parts = 0;
    double instructions = 0, bytes = 0;
    while (last < count && e[last].kind != BARRIER) {
      if (e[last].kind == TASK) starts[found++] = last;
      if (e[last].kind == PART && !found) starts[parts++] = last;
      last++;
    }
    int64_t stop = last < count ? last + 1 : last;
    for (int64_t i = first; i < stop; i++) {
      instructions += e[i].instructions + (e[i].kind == DMA ? m->dma_instructions : 0);
      bytes += e[i].bytes; s->waits += e[i].waits; s->posts += e[i].posts;
    }
    int phase = found ? 1 : seen_rows ? 2 : 0;
    seen_rows |= found;
    if (found) {
      starts[found] = stop;
      for (int64_t i = first; i < starts[0]; i++) step(m, 0, &e[i]);
      rows(m, e, starts, found);
    } else {
      starts[0] = first;  // what comes before the first part is its
      parts = parts ? parts : 1;
      starts[parts] = stop;
      shares(m, e, starts, parts);
    }
    meet(m, s);
    s->phase_cycles[phase] += now[0] - before;
    s->phase_instructions[phase] += instructions;
    s->phase_bytes[phase] += bytes;
    s->instructions += instructions; s->bytes += bytes;
    before = now[0];
    first = stop;
  }
  s->cycles = before;
  for (int c = 0; c < m->channels; c++) s->cycles = fmax(s->cycles, channel_free[c]);
}
