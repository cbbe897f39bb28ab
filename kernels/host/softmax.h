// Softmax and log-sum-exp over f32 logits, safe against overflow. Natural logarithms.
//
// Logits may be -infinity (nothing there) and large; NaN must not come in: scoring
// kernels make none. Thread safety: pure functions.

#ifndef KVTIER_KERNELS_HOST_SOFTMAX_H_
#define KVTIER_KERNELS_HOST_SOFTMAX_H_

#include <cstddef>

namespace kvtier::kernels {

// x = softcap * tanh(x / softcap), in place; nothing if softcap is 0.
void Softcap(float softcap, float* logits, size_t count);

// weights[i] = exp(logits[i] - max), 0 where all are -infinity; returns the log-sum-exp.
// `weights` may be `logits`. The sum of the weights goes to *weight_sum.
float ExpShifted(const float* logits, size_t count, float* weights, float* weight_sum);

// probabilities[i] += factor * softmax(logits)[i].
//   scratch: [count]
void AddSoftmax(const float* logits, size_t count, float factor, float* scratch,
                float* probabilities);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_SOFTMAX_H_
