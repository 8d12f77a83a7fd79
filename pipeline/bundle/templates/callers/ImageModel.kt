// Runs the model on pictures on Android. What it takes is in ModelInfo.kt, what it answers in Answer.kt.
// The syntax of this file was checked; it was never run.
package model

import android.content.Context
import android.graphics.Bitmap

/** Loads the model once; [run] gives its outputs. */
class ImageModel(context: Context, file: String) : AutoCloseable {
    private val runner = Runner(context, file)

    /** A picture of any size; it is scaled to the model's size, which distorts it unless it has its proportions. */
    fun run(picture: Bitmap): FloatArray {
        val image = preprocess(Bitmap.createScaledBitmap(picture, WIDTH, HEIGHT, true))
        return runner.run(mapOf(INPUTS[0].name to image)).getValue(OUTPUTS[0].name)
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

    override fun close() = runner.close()
}
