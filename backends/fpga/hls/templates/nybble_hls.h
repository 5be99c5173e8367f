// Fields of packed words, and the points where a simulation that counts cycles looks in.
#ifndef NYBBLE_HLS_H
#define NYBBLE_HLS_H

#include <ap_int.h>
#include <hls_stream.h>

#include <cmath>

#ifndef NYBBLE_CYCLE
// one iteration of a pipelined loop, the depth of a FIFO, and a process of a DATAFLOW region; nothing
// in synthesis
#define NYBBLE_CYCLE
#define NYBBLE_DEPTH(name, depth)
#define NYBBLE_PROCESS(name, call) call
#define NYBBLE_DATAFLOW_END
#endif

// The number whose bits are given, and the reverse; f32 travels in words as bits.
inline float float_of(unsigned int bits) {
#pragma HLS INLINE
  union {
    unsigned int bits;
    float value;
  } both;
  both.bits = bits;
  return both.value;
}

inline unsigned int bits_of(float value) {
#pragma HLS INLINE
  union {
    unsigned int bits;
    float value;
  } both;
  both.value = value;
  return both.bits;
}

// Field `index` of a word of unsigned fields of WIDTH bits, WIDTH up to 32.
template <int WIDTH, int BITS>
inline unsigned int field(const ap_uint<BITS>& word, int index) {
#pragma HLS INLINE
  return word.range(WIDTH * index + WIDTH - 1, WIDTH * index).to_uint();
}

// The same of signed fields: the value is the low bits, the highest of which counts negative.
template <int WIDTH, int BITS>
inline int signed_field(const ap_uint<BITS>& word, int index) {
#pragma HLS INLINE
  return ap_int<WIDTH>(field<WIDTH>(word, index)).to_int();
}

// Sets field `index` to the low bits of a value.
template <int WIDTH, int BITS>
inline void set_field(ap_uint<BITS>& word, int index, int value) {
#pragma HLS INLINE
  word.range(WIDTH * index + WIDTH - 1, WIDTH * index) = (unsigned int)value;
}

#endif
