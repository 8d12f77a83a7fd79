// Runs the model on Android with LiteRT (com.google.ai.edge.litert:litert). Put its file into the app's assets.
// What the model takes is in ModelInfo.kt. The syntax of this file was checked; it was never run.
package model

import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

/** Loads the model once; [run] gives the numbers of each output for those of each input, by their names. */
class Runner(context: Context, file: String) : AutoCloseable {
    private val compiled = CompiledModel.create(context.assets, file, CompiledModel.Options(Accelerator.CPU))
    private val inputs = INPUTS.associateWith { compiled.createInputBuffer(it.name) }
    private val outputs = OUTPUTS.associateWith { compiled.createOutputBuffer(it.name) }

    fun run(values: Map<String, FloatArray>): Map<String, FloatArray> {
        for ((tensor, buffer) in inputs) {
            write(buffer, tensor, values[tensor.name] ?: error("there is nothing for ${tensor.name}"))
        }
        compiled.run(inputs.mapKeys { it.key.name }, outputs.mapKeys { it.key.name })
        return outputs.entries.associate { (tensor, buffer) -> tensor.name to read(buffer, tensor) }
    }

    override fun close() {
        inputs.values.forEach { it.close() }
        outputs.values.forEach { it.close() }
        compiled.close()
    }
}
