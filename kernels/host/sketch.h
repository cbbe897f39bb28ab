// The 2-bit key sketch of a page: q.k of 64 tokens from 2 bits a component.
//
// With m the page's mean key and R the fixed rotation, y = R (k - m) of a token is coded
// component by component to four levels z in {-1.5, -0.5, 0.5, 1.5}, times 0.996 of y's
// rms; then one scale a token is fitted, c = <y, z> / <z, z>. So
//     q.k  ~  q.m + c (R q).z
// and a query is rotated once, not once a page.
//
// Scoring never unpacks: the two bits lie in planes, transposed so that a byte holds four
// components of two tokens as nibbles (the layout is in retrieval/abstract.h). For each
// four components a 16-entry table holds the partial sums of the rotated query, and a
// byte shuffle looks 16 or 32 tokens up at once. Table entries are 8 bits, one step size
// a query head: the high plane's at most 170, the low plane's at most 85, so that their
// sum fits a byte and 256 of them (D = 1024) fit 16 bits.
//
// Thread safety: pure functions; a SketchQuery is read-only while it scores.

#ifndef KVTIER_KERNELS_HOST_SKETCH_H_
#define KVTIER_KERNELS_HOST_SKETCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvtier::kernels {

inline constexpr size_t kSketchTokens = 64;
// key_dim's limit: beyond it the 16-bit sums could overflow.
inline constexpr size_t kSketchDimMax = 1024;

// Where the parts of one page's sketch lie.
struct SketchParts {
  const uint16_t* mean_f16;  // [dim]
  const uint8_t* scales;     // [64]
  const uint8_t* high;       // [D / 4][32]
  const uint8_t* low;        // [D / 4][32]
};

// c of a scale byte: 2^((byte - 128) / 8), and 0 of byte 0.
float SketchScale(uint8_t byte);
// The nearest byte; 0 for what is 0 or below the smallest scale.
uint8_t SketchScaleByte(float scale);

// Codes 64 keys.
//   keys:     [64][PaddedRow(dim)] finite f32, padded with zeros
//   mean_f16: out, [dim]; saturates at the largest f16
//   scales:   out, [64];  high, low: out, [D / 4][32]
//   scratch:  resized as needed; keep it between calls
void EncodeSketch(const float* keys, size_t dim, uint16_t* mean_f16, uint8_t* scales,
                  uint8_t* high, uint8_t* low, std::vector<float>* scratch);

// Query heads made ready to score pages.
struct SketchQuery {
  size_t heads = 0;
  size_t dim = 0;
  size_t groups = 0;            // D / 4
  std::vector<float> queries;   // [heads, made even][PaddedRow(dim)]
  std::vector<uint8_t> tables;  // [heads, made even][groups][high 16, low 16]
  std::vector<float> step;      // [heads]
  std::vector<float> offset;    // [heads]
  std::vector<float> scratch;
};

// queries: [heads][dim], finite. Reuses the memory of `out`.
void PrepareSketchQuery(const float* queries, size_t heads, size_t dim, SketchQuery* out);

// logits[h * head_stride + t] = scale * q_h.k_t as sketched, for the page's 64 tokens.
//   next: the page that will be scored next, or any: the memory is asked for it
//         meanwhile, since pages' abstracts lie apart, which no processor foresees
void ScoreSketch(const SketchQuery& query, const SketchParts& page,
                 const SketchParts& next, float scale, float* logits, size_t head_stride);

// The same by the definition, component by component, with the query unquantised.
void ScoreSketchReference(const float* queries, size_t heads, size_t dim,
                          const SketchParts& page, float scale, float* logits,
                          size_t head_stride);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_SKETCH_H_
