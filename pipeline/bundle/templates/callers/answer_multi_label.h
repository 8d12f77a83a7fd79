// The outputs are logits or probabilities, one for each label.
#pragma once

#include "model_info.h"

// The probability of each label, in the order of model::kLabels, separated by tabs.
inline void print_answer(const std::vector<double>& outputs) {
  for (std::size_t place = 0; place < outputs.size(); ++place) {
    const double share = model::kProbabilities ? outputs[place] : 1 / (1 + std::exp(-outputs[place]));
    std::printf("%s%.6f", place == 0 ? "" : "\t", share);
  }
  std::printf("\n");
}
