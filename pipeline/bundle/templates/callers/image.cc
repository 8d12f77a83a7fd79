// Runs the model on images: image MODEL IMAGE..., and prints a line for each.
// An image is a file of raw bytes: rows from the top, channels last. What belongs to the runtime is in session.h,
// what the outputs mean in answer.h.
#include "answer.h"
#include "image.h"
#include "session.h"

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s MODEL IMAGE...\n", arguments[0]);
    return 2;
  }
  try {
    Session session(arguments[1]);
    for (int number = 2; number < count; ++number) {
      const Bytes pixels = read_file(arguments[number], model::kHeight * model::kWidth * model::kChannels);
      const std::vector<Bytes> outputs = session.run({encode(preprocess(pixels), model::kInputs[0])});
      print_answer(decode(outputs[0], model::kOutputs[0]));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
