// An image's bytes to the model's input, and logits to a line of output.
#pragma once

#include "model_info.h"

// (image / 255 - mean) / std per channel, in the model's order of axes; rows from the top, channels last.
inline std::vector<float> preprocess(const Bytes& pixels) {
  std::vector<float> input(pixels.size());
  const std::size_t area = model::kHeight * model::kWidth;
  for (std::size_t place = 0; place < area; ++place) {
    for (std::size_t channel = 0; channel < model::kChannels; ++channel) {
      const std::size_t from = place * model::kChannels + channel;
      const float value = static_cast<float>(pixels[from]) / 255.0f;
      input[model::kChannelsFirst ? channel * area + place : from] =
          (value - model::kMean[channel]) / model::kStd[channel];
    }
  }
  return input;
}

// Index, probability and label of the likeliest class, separated by tabs.
inline void print_likeliest(const std::vector<double>& logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double each : logits) sum += std::exp(each - *best);
  const std::size_t index = static_cast<std::size_t>(best - logits.begin());
  std::printf("%zu\t%.6f\t%s\n", index, 1 / sum, model::kLabels[index]);
}
