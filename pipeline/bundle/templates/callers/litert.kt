// Classifies images on Android with LiteRT (com.google.ai.edge.litert:litert).
// Put the model file into the app's assets. The constants are in ModelInfo.kt.
package model

import android.content.Context
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

/** Loads the model once; [classify] gives the index of the likeliest label. */
class Classifier(context: Context, file: String) : AutoCloseable {
    private val compiled = CompiledModel.create(context.assets, file, CompiledModel.Options(Accelerator.CPU))
    private val inputs = compiled.createInputBuffers()
    private val outputs = compiled.createOutputBuffers()

    /** A picture of any size; it is scaled to the model's size, which distorts it unless it has its proportions. */
    fun classify(picture: Bitmap): Int {
        inputs[0].writeFloat(preprocess(Bitmap.createScaledBitmap(picture, WIDTH, HEIGHT, true)))
        compiled.run(inputs, outputs)
        val logits = outputs[0].readFloat()
        return logits.indices.maxByOrNull { logits[it] } ?: error("the model has no classes")
    }

    /** (image / 255 - mean) / std per channel, channels last. */
    private fun preprocess(picture: Bitmap): FloatArray {
        val colours = IntArray(WIDTH * HEIGHT)
        picture.getPixels(colours, 0, WIDTH, 0, 0, WIDTH, HEIGHT)
        return FloatArray(colours.size * CHANNELS) { place ->
            val channel = place % CHANNELS
            (level(colours[place / CHANNELS], channel) / 255f - MEAN[channel]) / STD[channel]
        }
    }

    /** Red, green or blue; or the lightness of ITU-R BT.601, as Pillow computes it. */
    private fun level(colour: Int, channel: Int): Int {
        val parts = intArrayOf(colour shr 16 and 0xff, colour shr 8 and 0xff, colour and 0xff)
        if (CHANNELS == 3) return parts[channel]
        return (parts[0] * 19595 + parts[1] * 38470 + parts[2] * 7471 + 0x8000) shr 16
    }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        compiled.close()
    }
}
