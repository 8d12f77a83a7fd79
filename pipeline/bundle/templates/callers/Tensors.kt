// Numbers as the inputs and outputs of the model hold them. Its syntax was checked; it was never run.
package model

import com.google.ai.edge.litert.TensorBuffer
import kotlin.math.roundToInt

enum class Type { FLOAT32, INT8, UINT8, INT32, INT64, BOOL }

/** An input or output; real numbers are (stored - zeroPoint) * scale where the scale is not 0. */
class Tensor(val name: String, val type: Type, val shape: IntArray, val scale: Float, val zeroPoint: Int) {
    val size = shape.fold(1) { product, each -> product * each }
}

/** Write numbers into a buffer of an input. */
fun write(buffer: TensorBuffer, tensor: Tensor, values: FloatArray) {
    require(values.size == tensor.size) { "${tensor.name} takes ${tensor.size} numbers" }
    when (tensor.type) {
        Type.FLOAT32 -> buffer.writeFloat(values)
        Type.INT8 -> buffer.writeInt8(ByteArray(values.size) { stored(values[it], tensor, -128, 127).toByte() })
        Type.UINT8 -> buffer.writeInt8(ByteArray(values.size) { stored(values[it], tensor, 0, 255).toByte() })
        Type.INT32 -> buffer.writeInt(IntArray(values.size) { values[it].roundToInt() })
        Type.INT64 -> buffer.writeLong(LongArray(values.size) { values[it].toLong() })
        Type.BOOL -> buffer.writeBoolean(BooleanArray(values.size) { values[it] != 0f })
    }
}

/** The numbers in a buffer of an output. */
fun read(buffer: TensorBuffer, tensor: Tensor): FloatArray = when (tensor.type) {
    Type.FLOAT32 -> buffer.readFloat()
    Type.INT8 -> buffer.readInt8().let { bytes -> FloatArray(bytes.size) { real(bytes[it].toInt(), tensor) } }
    Type.UINT8 -> buffer.readInt8().let { bytes -> FloatArray(bytes.size) { real(bytes[it].toInt() and 0xff, tensor) } }
    Type.INT32 -> buffer.readInt().let { numbers -> FloatArray(numbers.size) { numbers[it].toFloat() } }
    Type.INT64 -> buffer.readLong().let { numbers -> FloatArray(numbers.size) { numbers[it].toFloat() } }
    Type.BOOL -> buffer.readBoolean().let { truths -> FloatArray(truths.size) { if (truths[it]) 1f else 0f } }
}

private fun stored(value: Float, tensor: Tensor, low: Int, high: Int): Int {
    if (tensor.scale == 0f) return value.roundToInt().coerceIn(low, high)
    return ((value / tensor.scale).roundToInt() + tensor.zeroPoint).coerceIn(low, high)
}

private fun real(value: Int, tensor: Tensor): Float {
    return if (tensor.scale == 0f) value.toFloat() else (value - tensor.zeroPoint) * tensor.scale
}
