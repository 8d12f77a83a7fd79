// The outputs are logits or probabilities, one for each label.
// The syntax of this file was checked; it was never run.
package model

import kotlin.math.exp

/** The probability of each label of [LABELS]. */
fun probabilities(outputs: FloatArray): Map<String, Float> = LABELS.indices.associate {
    LABELS[it] to if (PROBABILITIES) outputs[it] else 1f / (1f + exp(-outputs[it]))
}
