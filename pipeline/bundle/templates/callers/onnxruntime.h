// The model by ONNX Runtime's C API. Link with onnxruntime.
#pragma once

#include <onnxruntime_c_api.h>

#include "model_info.h"

class Session {
 public:
  // Raises std::runtime_error where the file cannot be loaded.
  explicit Session(const char* path) : api_(OrtGetApiBase()->GetApi(ORT_API_VERSION)) {
    if (api_ == nullptr) throw std::runtime_error("this ONNX Runtime is older than its header");
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "model", &environment_));
    OrtSessionOptions* options = nullptr;
    check(api_->CreateSessionOptions(&options));
    check(api_->SetIntraOpNumThreads(options, model::kThreads));
    check(api_->SetInterOpNumThreads(options, 1));
    check(api_->CreateSession(environment_, path, options, &session_));
    api_->ReleaseSessionOptions(options);
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    api_->ReleaseMemoryInfo(memory_);
    api_->ReleaseSession(session_);
    api_->ReleaseEnv(environment_);
  }

  // The bytes of each output for those of each input.
  std::vector<Bytes> run(std::vector<Bytes> inputs) {
    const char* input_names[model::kInputCount];
    const char* output_names[model::kOutputCount];
    OrtValue* tensors[model::kInputCount] = {};
    OrtValue* results[model::kOutputCount] = {};
    for (std::size_t number = 0; number < model::kInputCount; ++number) {
      const model::Tensor& tensor = model::kInputs[number];
      input_names[number] = tensor.name;
      check(api_->CreateTensorWithDataAsOrtValue(memory_, inputs[number].data(), inputs[number].size(), tensor.shape,
                                                 tensor.rank, element_type(tensor.type), &tensors[number]));
    }
    for (std::size_t number = 0; number < model::kOutputCount; ++number) {
      output_names[number] = model::kOutputs[number].name;
    }
    check(api_->Run(session_, nullptr, input_names, tensors, model::kInputCount, output_names, model::kOutputCount,
                    results));
    std::vector<Bytes> outputs;
    for (std::size_t number = 0; number < model::kOutputCount; ++number) {
      const std::size_t count = count_of(model::kOutputs[number]);
      if (elements(results[number]) != count) throw std::runtime_error("an output has another size than described");
      void* content = nullptr;
      check(api_->GetTensorMutableData(results[number], &content));
      const std::uint8_t* first = static_cast<const std::uint8_t*>(content);
      outputs.emplace_back(first, first + count * bytes_of(model::kOutputs[number].type));
    }
    for (OrtValue* each : tensors) api_->ReleaseValue(each);
    for (OrtValue* each : results) api_->ReleaseValue(each);
    return outputs;
  }

 private:
  void check(OrtStatus* status) {
    if (status == nullptr) return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw std::runtime_error(message);
  }

  std::size_t elements(const OrtValue* value) {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_->GetTensorTypeAndShape(value, &info));
    std::size_t count = 0;
    check(api_->GetTensorShapeElementCount(info, &count));
    api_->ReleaseTensorTypeAndShapeInfo(info);
    return count;
  }

  static ONNXTensorElementDataType element_type(model::Type type) {
    switch (type) {
      case model::Type::kFloat16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
      case model::Type::kFloat64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
      case model::Type::kInt8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
      case model::Type::kUint8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
      case model::Type::kInt16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
      case model::Type::kInt32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
      case model::Type::kInt64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
      case model::Type::kBool: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
      default: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }
  }

  const OrtApi* api_;
  OrtEnv* environment_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
};
