"""What a recipe says about one teacher; free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.distill.settings import TrainingSettings
from pipeline.recipe.paths import RecipePath
from pipeline.recipe.sizes import ImageSize

Statistic = Annotated[float, Field(ge=-1000, le=1000)]
OutputName = Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | str

_OWN_KEYS = {
    "train": {"width", "depth"},
    "factory": {"factory", "arguments", "weights", "weights_key"},
    "pt2": {"path"},
    "timm": {"model", "arguments", "weights", "weights_key"},
    "torchvision": {"model", "arguments", "weights", "weights_key"},
    "huggingface": {"model", "path"},
}
_NEEDED = {"factory": "factory", "pt2": "path", "timm": "model", "torchvision": "model"}


class TeacherConfig(BaseModel):
    """One ``[[teacher]]`` of a recipe.

    Attributes:
        kind: ``train`` (a small ConvNet, trained here), ``factory`` (Python function), ``pt2`` (file from
            ``torch.export.save``), ``timm``, ``torchvision``, or ``huggingface`` (a folder of transformers).
        width: ``train``: channels of the first stage; the second and third have two and four times as many.
        depth: ``train``: residual blocks per stage.
        factory: ``factory``: ``package.module:function`` that returns a ``torch.nn.Module``.
        model: ``timm``, ``torchvision``: name of the model; ``huggingface``: its name in the hub's cache.
        arguments: ``factory``, ``timm`` and ``torchvision``: keyword arguments of the function that makes it.
        weights: ``factory``, ``timm`` and ``torchvision``: state dict, ``.safetensors`` or of ``torch.save``.
        weights_key: which of several state dicts in the file, such as ``state_dict_ema``, or which prefix.
        path: ``pt2``: the file; ``huggingface``: the folder.
        members: how many networks are trained like this, each from a seed of its own: an ensemble.
        training: how a ``train`` teacher is trained; for the others it means that the teacher is trained on
            the data first, starting from its weights (fine-tuning).
        resize: side of a square, or height and width, to which images are enlarged or shrunk for the teacher
            (bilinear).
        channels: 3 repeats the channel of grey images for the teacher.
        mean: with ``std``: the teacher's own normalisation of images in 0..1, instead of the data's.
        std: see ``mean``.
        channel_order: ``bgr`` of a teacher whose first channel is blue, as OpenCV reads images.
        classes: for each class of the data, by its name, the output that stands for it, by number or by
            name, or several; without it output k stands for class k, unless its classes have names that are
            the data's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["train", "factory", "pt2", "timm", "torchvision", "huggingface"] = "train"
    width: int = Field(default=32, ge=1, le=4096)
    depth: int = Field(default=2, ge=1, le=100)
    factory: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="a function, written 'package.module:function'",
    )
    model: str | None = Field(default=None, min_length=1)
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: RecipePath | None = None
    weights_key: str | None = Field(default=None, min_length=1)
    path: RecipePath | None = None
    members: int = Field(default=1, ge=1, le=100)
    training: TrainingSettings | None = None
    resize: ImageSize | None = None
    channels: Literal[3] | None = None
    mean: tuple[Statistic, ...] | None = None
    std: tuple[Statistic, ...] | None = None
    channel_order: Literal["rgb", "bgr"] = "rgb"
    classes: dict[str, OutputName | Annotated[tuple[OutputName, ...], Field(min_length=1)]] | None = None

    @model_validator(mode="after")
    def _keys_fit_kind(self) -> Self:
        others = set().union(*_OWN_KEYS.values()) - _OWN_KEYS[self.kind]
        # Not "was it given": a configuration that was written out whole is read back.
        fields = type(self).model_fields
        foreign = {
            name
            for name in others
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }
        if foreign:
            raise ValueError(f"a teacher of kind '{self.kind}' does not take {', '.join(sorted(foreign))}")
        needed = _NEEDED.get(self.kind)
        if self.kind == "huggingface" and (self.path is None) == (self.model is None):
            raise ValueError("a teacher of kind 'huggingface' needs one of 'path', a folder, and 'model'")
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"a teacher of kind '{self.kind}' needs '{needed}'")
        if self.kind in ("factory", "torchvision") and self.weights is None and self.training is None:
            raise ValueError(
                f"a {self.kind}'s network has random weights: give 'weights', or 'training' to train it"
            )
        if self.kind == "pt2" and self.training is not None:
            raise ValueError("an exported graph cannot be trained; remove 'training' or use kind 'factory'")
        if self.members > 1 and self.kind != "train" and self.training is None:
            raise ValueError(
                "several 'members' of given weights would all be equal: add 'training', or one [[teacher]] "
                "table for each file"
            )
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("give 'mean' and 'std' together, with one value per channel each")
        if self.std is not None and min(self.std, default=0.0) <= 0:
            raise ValueError("every value of 'std' must be above 0")
        return self

    @property
    def name(self) -> str:
        """Short name for reports."""
        own = {
            "train": f"convnet-w{self.width}-d{self.depth}",
            "factory": (self.factory or "").partition(":")[2],
            "pt2": self.path.stem if self.path is not None else "",
            "timm": self.model or "",
            "torchvision": self.model or "",
            "huggingface": self.path.name if self.path is not None else self.model or "",
        }
        return own[self.kind]

    def content(self) -> dict[str, Any]:
        """Everything here that decides the logits besides the content of files, as JSON."""
        return self.model_dump(mode="json", exclude={"weights", "path", "members"})
