// What the examples share: an image's bytes to the model's input, and logits to a line of output.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "model_info.h"

// The content of a file of exactly kHeight x kWidth x kChannels bytes: rows from the top, channels last.
inline std::vector<std::uint8_t> read_image(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) throw std::runtime_error(std::string("cannot open ") + path);
  std::vector<std::uint8_t> pixels(model::kHeight * model::kWidth * model::kChannels + 1);
  const std::size_t count = std::fread(pixels.data(), 1, pixels.size(), file);
  std::fclose(file);
  if (count != pixels.size() - 1) throw std::runtime_error(std::string(path) + " is not an image of this size");
  pixels.pop_back();
  return pixels;
}

// (image / 255 - mean) / std per channel, in the model's order of axes.
inline std::vector<float> preprocess(const std::vector<std::uint8_t>& pixels) {
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
inline void print_likeliest(const float* logits) {
  const float* last = logits + model::kClasses;
  const float* best = std::max_element(logits, last);
  double sum = 0;
  for (const float* each = logits; each != last; ++each) sum += std::exp(static_cast<double>(*each) - *best);
  std::printf("%d\t%.6f\t%s\n", static_cast<int>(best - logits), 1 / sum, model::kLabels[best - logits]);
}
