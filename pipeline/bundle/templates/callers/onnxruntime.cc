// Classifies images with ONNX Runtime's C API: classify MODEL IMAGE...
// An image is a file of raw bytes, see classify.h. Link with onnxruntime.
#include <onnxruntime_c_api.h>

#include "classify.h"

namespace {

const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw std::runtime_error(message);
}

void run(int count, char** arguments) {
  if (api == nullptr) throw std::runtime_error("this ONNX Runtime is older than its header");
  OrtEnv* environment = nullptr;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "classify", &environment));
  OrtSessionOptions* options = nullptr;
  check(api->CreateSessionOptions(&options));
  check(api->SetIntraOpNumThreads(options, model::kThreads));
  check(api->SetInterOpNumThreads(options, 1));
  OrtSession* session = nullptr;
  check(api->CreateSession(environment, arguments[1], options, &session));
  OrtMemoryInfo* memory = nullptr;
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  for (int number = 2; number < count; ++number) {
    std::vector<float> input = preprocess(read_image(arguments[number]));
    OrtValue* tensor = nullptr;
    check(api->CreateTensorWithDataAsOrtValue(memory, input.data(), input.size() * sizeof(float),
                                              model::kInputShape, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                              &tensor));
    const char* inputs[] = {model::kInput};
    const char* outputs[] = {model::kOutput};
    OrtValue* result = nullptr;
    check(api->Run(session, nullptr, inputs, &tensor, 1, outputs, 1, &result));
    float* logits = nullptr;
    check(api->GetTensorMutableData(result, reinterpret_cast<void**>(&logits)));
    print_likeliest(logits);
    api->ReleaseValue(result);
    api->ReleaseValue(tensor);
  }
  api->ReleaseMemoryInfo(memory);
  api->ReleaseSession(session);
  api->ReleaseSessionOptions(options);
  api->ReleaseEnv(environment);
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
