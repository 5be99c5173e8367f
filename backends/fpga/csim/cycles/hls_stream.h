// A hls::stream that holds as many words as its FIFO does and counts cycles, in the place of the
// vendor's, which never fills up and knows no time.
//
// Each process of a DATAFLOW region runs on a stack of its own with a clock of its own. An iteration
// of a pipelined loop takes a cycle. A word can be read FILL cycles after the iteration that wrote
// it began; a process that reads an empty stream, or writes a full one, waits, and its clock goes on
// to when the word came or the place became free. Such a network has one result whatever the order
// in which processes are run, and so have these clocks. What ends the program, with status 3 and a
// line on the error stream:
//
//   deadlock       every process that has not ended waits for another
//   empty          a stream is read whose writer has ended
//   overflow       words are left in a stream in the end, which hardware would keep for the next run
//   interval       a stream is read or written twice in a cycle: the loop cannot have an interval of 1
#ifndef NYBBLE_CYCLES_HLS_STREAM_H
#define NYBBLE_CYCLES_HLS_STREAM_H

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nybble {

#ifndef NYBBLE_FILL
#define NYBBLE_FILL 8
#endif
constexpr long FILL = NYBBLE_FILL;
constexpr std::size_t STACK = 16 << 20;

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(3);
}

struct Process {
  std::string name;
  std::function<void()> body;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  long clock = 0;      // the cycle of the iteration that it is in
  long iteration = 0;  // how many it has begun
  bool done = false;
  std::string waits;
};

struct Simulator {
  std::vector<std::unique_ptr<Process>> processes;
  Process* current = nullptr;
  ucontext_t scheduler;
  bool moved = false;  // whether anything happened in this round
  long cycles = 0;     // of the last run

  static Simulator& get() {
    static Simulator one;
    return one;
  }

  void spawn(const std::string& name, std::function<void()> body) {
    processes.emplace_back(new Process{name, std::move(body), {}, nullptr, 0, 0, false, ""});
  }

  static void enter() {
    Process* own = get().current;
    own->body();
    own->done = true;
    get().moved = true;
    swapcontext(&own->context, &get().scheduler);
  }

  void wait(const std::string& what) {
    current->waits = what;
    Process* own = current;
    swapcontext(&own->context, &scheduler);
    own->waits.clear();
  }

  void run() {
    for (auto& one : processes) {
      one->stack.reset(new char[STACK]);
      getcontext(&one->context);
      one->context.uc_stack.ss_sp = one->stack.get();
      one->context.uc_stack.ss_size = STACK;
      one->context.uc_link = nullptr;
      makecontext(&one->context, &Simulator::enter, 0);
    }
    for (moved = true; moved;) {
      moved = false;
      for (auto& one : processes) {
        if (one->done) continue;
        current = one.get();
        swapcontext(&scheduler, &one->context);
      }
    }
    current = nullptr;
    std::string stuck;
    cycles = 0;
    for (auto& one : processes) {
      if (!one->done) stuck += (stuck.empty() ? "" : "; ") + one->name + " " + one->waits;
      cycles = std::max(cycles, one->clock + FILL);
    }
    if (!stuck.empty()) fail("deadlock: " + stuck);
    processes.clear();
  }
};

// The next iteration of a pipelined loop.
inline void cycle() {
  Process* own = Simulator::get().current;
  if (own == nullptr) fail("a pipelined loop outside of a process");
  if (own->iteration++) own->clock++;
}

}  // namespace nybble

namespace hls {

template <typename Word>
class stream {
 public:
  explicit stream(const std::string& name = "stream") : name_(name) {}
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;

  ~stream() {
    if (!words_.empty()) {
      nybble::fail("overflow: " + std::to_string(words_.size()) + " word(s) left in '" + name_ + "'");
    }
  }

  // How many words it holds; called once, after it was made.
  void set_depth(int depth) { depth_ = depth; }

  Word read() {
    nybble::Process* own = port(reader_, read_in_, "read");
    while (words_.empty()) {
      if (writer_ != nullptr && writer_->done) {
        nybble::fail("empty: " + own->name + " reads '" + name_ + "', whose writer has ended");
      }
      nybble::Simulator::get().wait("reads '" + name_ + "', which is empty");
    }
    Slot slot = words_.front();
    words_.pop_front();
    own->clock = std::max(own->clock, slot.time);
    freed_.push_back(own->clock + 1);
    nybble::Simulator::get().moved = true;
    return slot.word;
  }

  void read(Word& word) { word = read(); }
  void operator>>(Word& word) { word = read(); }
  void operator<<(const Word& word) { write(word); }

  void write(const Word& word) {
    nybble::Process* own = port(writer_, written_in_, "written");
    while ((int)words_.size() >= depth_) {
      nybble::Simulator::get().wait("writes '" + name_ + "', which holds " + std::to_string(depth_));
    }
    if (written_ >= depth_) {  // the place of this word was another's before
      own->clock = std::max(own->clock, freed_.front() - nybble::FILL);
      freed_.pop_front();
    }
    written_++;
    words_.push_back(Slot{word, own->clock + nybble::FILL});
    nybble::Simulator::get().moved = true;
  }

  bool empty() const { return words_.empty(); }
  bool full() const { return (int)words_.size() >= depth_; }
  std::size_t size() const { return words_.size(); }

 private:
  struct Slot {
    Word word;
    long time;  // the first cycle that it can be read in
  };

  // Checks that this end of the stream is used by one process, once in an iteration.
  nybble::Process* port(nybble::Process*& end, long& used, const char* how) {
    nybble::Process* own = nybble::Simulator::get().current;
    if (own == nullptr) nybble::fail("'" + name_ + "' is " + how + " outside of a process");
    if (end != nullptr && end != own) {
      nybble::fail("'" + name_ + "' is " + how + " by " + end->name + " and by " + own->name);
    }
    end = own;
    if (own->iteration && used == own->iteration) {
      nybble::fail("interval: " + own->name + ": '" + name_ + "' is " + how +
                   " twice in a cycle, which takes an interval of 2");
    }
    used = own->iteration;
    return own;
  }

  std::string name_;
  int depth_ = 2;  // what HLS gives a stream without a pragma
  long written_ = 0;
  long read_in_ = -1, written_in_ = -1;
  nybble::Process *reader_ = nullptr, *writer_ = nullptr;
  std::deque<Slot> words_;
  std::deque<long> freed_;
};

}  // namespace hls

#define NYBBLE_CYCLE nybble::cycle();
#define NYBBLE_DEPTH(name, depth) name.set_depth(depth)
#define NYBBLE_PROCESS(name, call) nybble::Simulator::get().spawn(name, [&] { call; })
#define NYBBLE_DATAFLOW_END nybble::Simulator::get().run()

#endif
