// Classifies images with LiteRT's C API: classify MODEL IMAGE...
// An image is a file of raw bytes, see classify.h. Link with LiteRt.
// LiteRT chooses the number of threads here; the model was measured with model::kThreads.
#include <cstring>

#include "classify.h"
#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"
#include "litert/c/litert_tensor_buffer_requirements.h"

namespace {

void check(LiteRtStatus status, const char* what) {
  if (status != kLiteRtStatusOk) throw std::runtime_error(std::string(what) + " failed, status " + std::to_string(status));
}

template <std::size_t Rank>
LiteRtRankedTensorType float_tensor(const std::int64_t (&shape)[Rank]) {
  LiteRtRankedTensorType type{};
  type.element_type = kLiteRtElementTypeFloat32;
  type.layout.rank = Rank;
  for (std::size_t axis = 0; axis < Rank; ++axis) type.layout.dimensions[axis] = static_cast<std::int32_t>(shape[axis]);
  return type;
}

void run(int count, char** arguments) {
  LiteRtEnvironment environment = nullptr;
  check(LiteRtCreateEnvironment(0, nullptr, &environment), "the environment");
  LiteRtModel model = nullptr;
  check(LiteRtCreateModelFromFile(environment, arguments[1], &model), "loading the model");
  LiteRtOptions options = nullptr;
  check(LiteRtCreateOptions(&options), "the options");
  check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu), "choosing the CPU");
  LiteRtCompiledModel compiled = nullptr;
  check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "compiling the model");

  LiteRtTensorBufferRequirements needs = nullptr;
  LiteRtTensorBuffer input = nullptr, output = nullptr;
  LiteRtRankedTensorType type = float_tensor(::model::kInputShape);
  check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &needs), "the input");
  check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &input), "the input");
  type = float_tensor(::model::kOutputShape);
  check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &needs), "the output");
  check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &output), "the output");

  for (int number = 2; number < count; ++number) {
    const std::vector<float> values = preprocess(read_image(arguments[number]));
    void* memory = nullptr;
    check(LiteRtLockTensorBuffer(input, &memory, kLiteRtTensorBufferLockModeWrite), "writing the input");
    std::memcpy(memory, values.data(), values.size() * sizeof(float));
    check(LiteRtUnlockTensorBuffer(input), "writing the input");
    check(LiteRtRunCompiledModel(compiled, 0, 1, &input, 1, &output), "running the model");
    check(LiteRtLockTensorBuffer(output, &memory, kLiteRtTensorBufferLockModeRead), "reading the output");
    print_likeliest(static_cast<const float*>(memory));
    check(LiteRtUnlockTensorBuffer(output), "reading the output");
  }
  LiteRtDestroyTensorBuffer(output);
  LiteRtDestroyTensorBuffer(input);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s MODEL IMAGE...\n", arguments[0]);
    return 2;
  }
  try {
    run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
