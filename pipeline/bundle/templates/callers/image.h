// An image's bytes to the model's input.
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
