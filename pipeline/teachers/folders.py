"""Folders of transformers: their files, and where the hub's cache has them. Importing it imports no torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from devices.installing import how_to_install
from pipeline.errors import TeacherError


def folder_in_cache(model: str) -> Path:
    """Where the hub's cache has a model, by its name there.

    Raises:
        TeacherError: huggingface_hub is not installed, or the model is not in the cache.
    """
    transformers_here()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception as error:  # the hub's client raises many kinds
        raise TeacherError(
            f"the model '{model}' is not in the cache of the Hugging Face hub",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix=f"fetch it with 'hf download {model}', or give 'path', a folder; Lathe downloads no models",
        ) from error


def files_of_folder(folder: Path) -> list[Path]:
    """The files that make the teacher: descriptions, and weights in the safest form that there is."""
    weights = "*.safetensors" if has_safetensors(folder) else "pytorch_model*.bin"
    found = [*folder.glob("*.json"), *folder.glob("*.py"), *folder.glob(weights)]
    return sorted(path for path in found if path.is_file())


def transformers_here() -> Any:
    """The package, which then says nothing but errors.

    Raises:
        TeacherError: it is not installed.
    """
    try:
        import transformers
    except (ImportError, RuntimeError) as error:
        raise TeacherError(
            "a teacher of kind 'huggingface' needs the package transformers, which cannot be imported",
            why=str(error),
            fix=how_to_install("huggingface"),
        ) from error
    # What transformers imports on its way complains of parts that image classifiers do not use.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    package: Any = transformers
    package.utils.logging.set_verbosity_error()
    package.utils.logging.disable_progress_bar()
    return package


def has_safetensors(folder: Path) -> bool:
    """Whether a folder has weights that can hold no code."""
    return any(folder.glob("*.safetensors"))
