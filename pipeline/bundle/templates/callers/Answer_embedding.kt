// The outputs are a vector whose direction counts.
// The syntax of this file was checked; it was never run.
package model

import kotlin.math.max
import kotlin.math.sqrt

/** The vector at length 1: the product of two of them is their cosine. */
fun unit(vector: FloatArray): FloatArray {
    val length = max(sqrt(vector.fold(0f) { sum, each -> sum + each * each }), 1e-12f)
    return FloatArray(vector.size) { vector[it] / length }
}
