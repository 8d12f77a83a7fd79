// The outputs are numbers in units of a spread around a mean.
#pragma once

#include "model_info.h"

// The numbers in the unit of the data, in the order of model::kLabels, separated by tabs.
inline void print_answer(const std::vector<double>& outputs) {
  for (std::size_t place = 0; place < outputs.size(); ++place) {
    const double value = outputs[place] * model::kOutputStd[place] + model::kOutputMean[place];
    std::printf("%s%.9g", place == 0 ? "" : "\t", value);
  }
  std::printf("\n");
}
