// The model by LiteRT's C API. Link with LiteRt.
// LiteRT chooses the number of threads here; the model was measured with model::kThreads.
#pragma once

#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"
#include "litert/c/litert_tensor_buffer_requirements.h"
#include "model_info.h"

class Session {
 public:
  // Raises std::runtime_error where the file cannot be loaded.
  explicit Session(const char* path) {
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), "the environment");
    check(LiteRtCreateModelFromFile(environment_, path, &model_), "loading the model");
    check(LiteRtCreateOptions(&options_), "the options");
    check(LiteRtSetOptionsHardwareAccelerators(options_, kLiteRtHwAcceleratorCpu), "choosing the CPU");
    check(LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_), "compiling the model");
    LiteRtSignature signature = nullptr;
    check(LiteRtGetModelSignature(model_, 0, &signature), "the signature");
    for (std::size_t place = 0; place < model::kInputCount; ++place) {
      const char* name = nullptr;
      check(LiteRtGetSignatureInputName(signature, place, &name), "an input");
      input_at_[place] = number_of(name, model::kInputs, model::kInputCount);
      LiteRtTensorBufferRequirements needs = nullptr;
      check(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, place, &needs), "an input");
      inputs_[place] = buffer(model::kInputs[input_at_[place]], needs);
    }
    for (std::size_t place = 0; place < model::kOutputCount; ++place) {
      const char* name = nullptr;
      check(LiteRtGetSignatureOutputName(signature, place, &name), "an output");
      output_at_[place] = number_of(name, model::kOutputs, model::kOutputCount);
      LiteRtTensorBufferRequirements needs = nullptr;
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, place, &needs), "an output");
      outputs_[place] = buffer(model::kOutputs[output_at_[place]], needs);
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    for (LiteRtTensorBuffer each : inputs_) LiteRtDestroyTensorBuffer(each);
    for (LiteRtTensorBuffer each : outputs_) LiteRtDestroyTensorBuffer(each);
    LiteRtDestroyCompiledModel(compiled_);
    LiteRtDestroyOptions(options_);
    LiteRtDestroyModel(model_);
    LiteRtDestroyEnvironment(environment_);
  }

  // The bytes of each output for those of each input.
  std::vector<Bytes> run(const std::vector<Bytes>& inputs) {
    void* memory = nullptr;
    for (std::size_t place = 0; place < model::kInputCount; ++place) {
      const Bytes& content = inputs[input_at_[place]];
      check(LiteRtLockTensorBuffer(inputs_[place], &memory, kLiteRtTensorBufferLockModeWrite), "writing an input");
      std::memcpy(memory, content.data(), content.size());
      check(LiteRtUnlockTensorBuffer(inputs_[place]), "writing an input");
    }
    check(LiteRtRunCompiledModel(compiled_, 0, model::kInputCount, inputs_, model::kOutputCount, outputs_),
          "running the model");
    std::vector<Bytes> outputs(model::kOutputCount);
    for (std::size_t place = 0; place < model::kOutputCount; ++place) {
      const model::Tensor& tensor = model::kOutputs[output_at_[place]];
      check(LiteRtLockTensorBuffer(outputs_[place], &memory, kLiteRtTensorBufferLockModeRead), "reading an output");
      const std::uint8_t* first = static_cast<const std::uint8_t*>(memory);
      outputs[output_at_[place]].assign(first, first + count_of(tensor) * bytes_of(tensor.type));
      check(LiteRtUnlockTensorBuffer(outputs_[place]), "reading an output");
    }
    return outputs;
  }

 private:
  static void check(LiteRtStatus status, const char* what) {
    if (status == kLiteRtStatusOk) return;
    throw std::runtime_error(std::string(what) + " failed, status " + std::to_string(status));
  }

  // The signature may have another order than the graph.
  static std::size_t number_of(const char* name, const model::Tensor* tensors, std::size_t count) {
    for (std::size_t number = 0; number < count; ++number) {
      if (std::strcmp(name, tensors[number].name) == 0) return number;
    }
    throw std::runtime_error(std::string("the model is another one: it has ") + name);
  }

  LiteRtTensorBuffer buffer(const model::Tensor& tensor, LiteRtTensorBufferRequirements needs) {
    LiteRtRankedTensorType type{};
    type.element_type = element_type(tensor.type);
    type.layout.rank = static_cast<unsigned int>(tensor.rank) & 0x7f;
    for (std::size_t axis = 0; axis < tensor.rank; ++axis) {
      type.layout.dimensions[axis] = static_cast<std::int32_t>(tensor.shape[axis]);
    }
    LiteRtTensorBuffer made = nullptr;
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, needs, &made), "a buffer");
    return made;
  }

  static LiteRtElementType element_type(model::Type type) {
    switch (type) {
      case model::Type::kFloat16: return kLiteRtElementTypeFloat16;
      case model::Type::kFloat64: return kLiteRtElementTypeFloat64;
      case model::Type::kInt8: return kLiteRtElementTypeInt8;
      case model::Type::kUint8: return kLiteRtElementTypeUInt8;
      case model::Type::kInt16: return kLiteRtElementTypeInt16;
      case model::Type::kInt32: return kLiteRtElementTypeInt32;
      case model::Type::kInt64: return kLiteRtElementTypeInt64;
      case model::Type::kBool: return kLiteRtElementTypeBool;
      default: return kLiteRtElementTypeFloat32;
    }
  }

  LiteRtEnvironment environment_ = nullptr;
  LiteRtModel model_ = nullptr;
  LiteRtOptions options_ = nullptr;
  LiteRtCompiledModel compiled_ = nullptr;
  LiteRtTensorBuffer inputs_[model::kInputCount] = {};
  LiteRtTensorBuffer outputs_[model::kOutputCount] = {};
  std::size_t input_at_[model::kInputCount] = {};
  std::size_t output_at_[model::kOutputCount] = {};
};
