// The outputs are logits or probabilities of the classes.
// The syntax of this file was checked; it was never run.
package model

/** The index of the likeliest label in [LABELS]. */
fun likeliest(outputs: FloatArray): Int =
    outputs.indices.maxByOrNull { outputs[it] } ?: error("the model has no classes")
