// The outputs are numbers in units of a spread around a mean.
// The syntax of this file was checked; it was never run.
package model

/** The numbers in the unit of the data, by their names in [LABELS]. */
fun values(outputs: FloatArray): Map<String, Float> =
    LABELS.indices.associate { LABELS[it] to outputs[it] * OUTPUT_STD[it] + OUTPUT_MEAN[it] }
