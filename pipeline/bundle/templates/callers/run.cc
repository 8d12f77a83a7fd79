// Runs the model once: run MODEL FILE..., with a file for each input, in the order of model_info.h.
// A file has raw numbers: float32 where the input takes that, or integers with a scale; else of the input's own
// type. Prints the name of each output and its numbers. What belongs to the runtime is in session.h.
#include "model_info.h"
#include "session.h"

namespace {

Bytes read_input(const char* path, const model::Tensor& tensor) {
  if (!takes_reals(tensor)) return read_file(path, count_of(tensor) * bytes_of(tensor.type));
  const Bytes content = read_file(path, count_of(tensor) * sizeof(float));
  std::vector<float> values(count_of(tensor));
  std::memcpy(values.data(), content.data(), content.size());
  return encode(values, tensor);
}

}  // namespace

int main(int count, char** arguments) {
  if (static_cast<std::size_t>(count) != 2 + model::kInputCount) {
    std::fprintf(stderr, "usage: %s MODEL", arguments[0]);
    for (const model::Tensor& each : model::kInputs) std::fprintf(stderr, " %s", each.name);
    std::fprintf(stderr, "\n");
    return 2;
  }
  try {
    Session session(arguments[1]);
    std::vector<Bytes> inputs;
    for (std::size_t number = 0; number < model::kInputCount; ++number) {
      inputs.push_back(read_input(arguments[2 + number], model::kInputs[number]));
    }
    const std::vector<Bytes> outputs = session.run(inputs);
    for (std::size_t number = 0; number < model::kOutputCount; ++number) {
      std::printf("%s", model::kOutputs[number].name);
      for (const double each : decode(outputs[number], model::kOutputs[number])) std::printf("\t%.17g", each);
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
