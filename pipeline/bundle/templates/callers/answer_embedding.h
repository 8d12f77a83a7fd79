// The outputs are a vector whose direction counts.
#pragma once

#include "model_info.h"

// The vector at length 1: the product of two of them is their cosine.
inline void print_answer(const std::vector<double>& vector) {
  double squares = 0;
  for (const double each : vector) squares += each * each;
  const double length = std::max(std::sqrt(squares), 1e-12);
  for (std::size_t place = 0; place < vector.size(); ++place) {
    std::printf("%s%.9g", place == 0 ? "" : "\t", vector[place] / length);
  }
  std::printf("\n");
}
