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

// logits become weights, in place: exp(logit - shift), 0 where all are -infinity. Returns
// the shift, their largest; their sum goes to *weight_sum.
float ExpShifted(float* logits, size_t count, float* weight_sum);

// Of logits whose weights are exp(logit - shift); -infinity where the weights are 0.
float LogSumExp(float shift, float weight_sum);

// probabilities[i] += factor * softmax(logits)[i]. logits become weights, as above;
// returns the shift.
float AddSoftmax(float* logits, size_t count, float factor, float* probabilities);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_SOFTMAX_H_
