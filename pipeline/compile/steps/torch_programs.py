"""Programs of ``torch.export`` lowered to what ExecuTorch runs, and compiled to native code by AOTInductor.

A program that is loaded here is trusted as one that is run: sympy evaluates expressions in it.

Sources: ExecuTorch 1.5, pages "XNNPACK Backend", "Quantization" and "Memory Planning" of its documentation;
PyTorch 2.13, page "AOTInductor: ahead-of-time compilation for torch.export-ed models".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def lower(model: str, path: str, inputs: str | None = None, *, dynamic: bool = False) -> None:
    """Save an ExecuTorch program, with XNNPACK for what that takes.

    Its input and output lie where the caller puts them, so that an inference copies neither.

    Args:
        model: a program.
        path: where to.
        inputs: ``.npz`` of calibration inputs, for int8 weights per channel and int8 activations.
        dynamic: int8 weights of linear layers per channel; activations are quantised as they come.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    program = _loaded(model)
    if inputs is not None or dynamic:
        example = program.example_inputs[0] if program.example_inputs else _zeros(program)
        program = torch.export.export(_quantised(program, inputs, dynamic), tuple(example))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    finished = lowered.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
    Path(path).write_bytes(finished.buffer)


def compile_ahead(model: str, folder: str, frozen: bool) -> str:
    """Compile a package by AOTInductor, and give its path.

    The bytes of a package depend on where it is made, so ``folder`` is always the same and empty; still they
    are not the same in every case.

    Args:
        model: a program.
        folder: for the package and for what is made on the way.
        frozen: weights are constants, so that batch normalisation is folded into convolutions and weights
            are brought into the order that the kernels want.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "cache")
    os.chdir(folder)  # which the compiler writes into what it makes
    import torch

    program = _loaded(model)
    shapes = [[list(tensor.shape), str(tensor.dtype)[len("torch.") :]] for tensor in _zeros(program)]
    path = str(Path(folder) / "model.pt2")
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=path,
            inductor_configs={
                "aot_inductor.metadata": {"lathe_inputs": json.dumps(shapes)},
                "aot_inductor.precompile_headers": False,
                "cpp.dynamic_threads": True,
                "freezing": frozen,
                "max_autotune": False,
                "size_asserts": False,  # their texts have addresses in them
            },
        )
    return path


def _loaded(model: str) -> Any:
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torch.export.load asks for less
    import torch

    return torch.export.load(model)


def _zeros(program: Any) -> list[Any]:
    """An input of the shapes and types that the program was exported with; open dimensions are taken as 1.

    Raises:
        ValueError: an input is not a tensor.
    """
    import torch

    names = program.graph_signature.user_inputs
    values = [
        node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    for value in values:
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"an input is {value!r}, not a tensor")
    return [
        torch.zeros([size if isinstance(size, int) else 1 for size in value.shape], dtype=value.dtype)
        for value in values
    ]


def _quantised(program: Any, inputs: str | None, dynamic: bool) -> Any:
    """The module of a program with quantisers for XNNPACK."""
    import numpy as np
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    settings = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    prepared = prepare_pt2e(program.module(), XNNPACKQuantizer().set_global(settings))
    with torch.no_grad():
        if inputs is None:
            prepared(*_zeros(program))
        else:
            arrays = list(dict(np.load(inputs, allow_pickle=False)).values())
            for rows in zip(*arrays, strict=True):
                prepared(*(torch.from_numpy(row[None]) for row in rows))
    return convert_pt2e(prepared)
