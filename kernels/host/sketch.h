// The 2-bit key sketch of a page: q.k of 64 tokens from 2 bits a component.
//
// With m the page's mean key and R the fixed rotation, y = R (k - m) of a token is coded
// component by component to four levels z in {-1.5, -0.5, 0.5, 1.5}, times 0.996 of y's
// rms; then one scale a token is fitted, c = <y, z> / <z, z>. So
//     q.k  ~  q.m + c (R q).z
// and a query is rotated once, not once a page.
//
// A dot product of bytes is what processors are quickest at, so the query's components
// become 8-bit numbers, of one step size a query head, and the two bits lie so that few
// instructions make bytes of them, once for all query heads: in two planes, of 32-bit
// words. A word holds 32 components (a block) of a token, and bit s of byte b is
// component 4 s + b: what a shift by s and a mask leave are four components that lie
// together in the query. Words of 64 tokens follow each other, then comes the next block.
// A vector of words is a vector of tokens' sums, so nothing is added across it.
//
// Thread safety: pure functions; a SketchQuery is read-only while it scores.

#ifndef KVTIER_KERNELS_HOST_SKETCH_H_
#define KVTIER_KERNELS_HOST_SKETCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvtier::kernels {

inline constexpr size_t kSketchTokens = 64;
inline constexpr size_t kSketchBlock = 32;     // components
inline constexpr size_t kSketchDimMax = 1024;  // key_dim's limit

// Of one plane. A block that the components don't fill is filled with zeros.
size_t SketchPlaneBytes(size_t dim);

// Where the parts of one page's sketch lie. Planes are aligned to 4 bytes.
struct SketchParts {
  const uint16_t* mean_f16;  // [dim]
  const uint8_t* scales;     // [64]
  const uint8_t* high;       // [blocks][64][4]
  const uint8_t* low;        // [blocks][64][4]
};

// c of a scale byte: 2^((byte - 128) / 8), and 0 of byte 0.
float SketchScale(uint8_t byte);
// The nearest byte; 0 for what is 0 or below the smallest scale.
uint8_t SketchScaleByte(float scale);

// Codes 64 keys.
//   keys:     [64][PaddedRow(dim)] finite f32, padded with zeros
//   mean_f16: out, [dim]; saturates at the largest f16
//   scales:   out, [64];  high, low: out, SketchPlaneBytes(dim) each
//   scratch:  resized as needed; keep it between calls
void EncodeSketch(const float* keys, size_t dim, uint16_t* mean_f16, uint8_t* scales,
                  uint8_t* high, uint8_t* low, std::vector<float>* scratch);

// Query heads made ready to score pages.
struct SketchQuery {
  size_t heads = 0;
  size_t dim = 0;
  size_t blocks = 0;
  std::vector<float> queries;  // [heads][PaddedRow(dim)]
  std::vector<int32_t> quads;  // [heads by fours][blocks][8][4], of 4 components
  std::vector<float> step;     // [heads]
  std::vector<float> offset;   // [heads]
  std::vector<float> scratch;
};

// queries: [heads][dim], finite;  scale: of all logits. Reuses the memory of `out`.
void PrepareSketchQuery(const float* queries, size_t heads, size_t dim, float scale,
                        SketchQuery* out);

// logits[h * head_stride + t] = scale * q_h.k_t as sketched, for the page's 64 tokens.
// Finite, for queries of up to 1e30 after scaling; larger ones are taken as that.
//   next: a page that will be scored soon, or any: the memory is asked for it meanwhile,
//         since pages' abstracts lie apart, which no processor foresees
void ScoreSketch(const SketchQuery& query, const SketchParts& page,
                 const SketchParts& next, float* logits, size_t head_stride);

// The same by the definition, component by component, with the query unquantised.
void ScoreSketchReference(const float* queries, size_t heads, size_t dim,
                          const SketchParts& page, float scale, float* logits,
                          size_t head_stride);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_SKETCH_H_
