// The outputs are logits or probabilities of the classes.
#pragma once

#include "model_info.h"

// Index, probability and label of the likeliest class, separated by tabs.
inline void print_answer(const std::vector<double>& outputs) {
  const auto best = std::max_element(outputs.begin(), outputs.end());
  double sum = 0;
  for (const double each : outputs) sum += std::exp(each - *best);
  const std::size_t index = static_cast<std::size_t>(best - outputs.begin());
  std::printf("%zu\t%.6f\t%s\n", index, model::kProbabilities ? *best : 1 / sum, model::kLabels[index]);
}
