"""A network that loses too much in int8 is fine-tuned where that can be, and else it is said why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.compile import CompiledModel, Fate, Place, Raced, Rules, Wish, compile_model, find_variant
from pipeline.compile.feeding import Feeding
from pipeline.compile.model import Factory, GivenModel, ModelInput, TensorSpec
from pipeline.compile.opening import open_model
from pipeline.compile.samples import Samples, SamplesInput, prepare_samples
from pipeline.compile.services import CompileServices
from pipeline.compile.tuning import TuneInput, Tuning, fine_tune, why_not_tuned
from pipeline.compile.variants import ModelFormat
from pipeline.progress import SilentReporter
from pipeline.tasks import Regression, RegressionInUnits, TaskKind
from pipeline.teachers.resnet import resnet_cifar
from pipeline.work.canonical import OutsideFile, StoredFile
from pipeline.work.folder import WorkFolder
from tests.pipeline.compile.finished_models import made_up_rounds, save_classifier

BASE, INT8 = "onnxruntime:fp32", "onnxruntime:int8-u8s8-minmax"
FACTORY, ARGUMENTS = "pipeline.teachers.resnet:resnet_cifar", {"depth": 8, "width": 4, "classes": 4}


class _SpoiltAtFirst:
    """Makes a file of other weights, which loses accuracy, of the first model that it is given."""

    def __init__(self, other: Path) -> None:
        self._make, self._other = find_variant(INT8).make, other
        self._first: Path | None = None

    def __call__(self, task: Any, path: Path) -> Any:
        self._first = self._first or task.model
        spoilt = task.model == self._first
        return self._make(replace(task, model=self._other, shared=None) if spoilt else task, path)


@pytest.fixture(autouse=True)
def _loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = save_classifier(tmp_path / "other.onnx", (1, 3, 8, 8), seed=7, input_name="input")
    spoilt = replace(find_variant(INT8), make=_SpoiltAtFirst(other))
    known = (find_variant(BASE), spoilt)
    monkeypatch.setattr("pipeline.compile.place.known_variants", lambda: known)
    monkeypatch.setattr("pipeline.compile.making.find_variant", {each.name: each for each in known}.get)
    times = {BASE: 100, INT8: 30, f"{INT8}+tuned": 30}
    monkeypatch.setattr("pipeline.compile.race.measure_round", made_up_rounds(times))
    monkeypatch.setattr("pipeline.compile.samples.HELD_OUT", 100)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Weights of a small network that gives each class to some images."""
    torch.manual_seed(0)
    net = resnet_cifar(**ARGUMENTS)
    with torch.no_grad():
        for _ in range(50):  # its normalisations know the images
            net.train()(inputs_of(images(400)))
        net.eval().linear.bias -= net(inputs_of(images(400))).median(dim=0).values
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def images(count: int) -> np.ndarray:
    levels = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3))
    noise = np.random.default_rng(1).integers(-40, 41, (count, 8, 8, 3))
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


def inputs_of(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).permute(0, 3, 1, 2) / 255


def data(tmp_path: Path, weights: Path, count: int) -> Path:
    """Images with the classes that the network gives them."""
    net = resnet_cifar(**ARGUMENTS)
    net.load_state_dict(load_file(weights))
    values = images(count)
    with torch.no_grad():
        labels = net.eval()(inputs_of(values)).argmax(dim=1)
    np.savez(tmp_path / "data.npz", x=values, y=labels.numpy())
    return tmp_path / "data.npz"


def compiled(wish: Wish, tmp_path: Path) -> CompiledModel:
    work = WorkFolder(tmp_path / "work")
    with work.opened():
        return compile_model(wish, work, SilentReporter())


def only(found: CompiledModel) -> Raced:
    (raced,) = found.raced.values()
    return raced


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
def test_a_network_that_loses_too_much_in_int8_is_fine_tuned_and_that_is_told(
    tmp_path: Path, network: Path
) -> None:
    wish = Wish(
        FACTORY,
        (Place.parse("host/onnxruntime@1"),),
        data(tmp_path, network, 800),
        rules=Rules(max_drop=15),
        arguments=ARGUMENTS,
        weights=network,
        input_shape=(3, 8, 8),
        fine_tuning_epochs=2,
    )
    found = compiled(wish, tmp_path)
    raced = only(found)
    rejected, tuned = raced.row(INT8), raced.row(f"{INT8}+tuned")
    assert rejected.fate is Fate.REJECTED
    assert tuned.fate is Fate.MEASURED, (tuned.why, tuned.notes["fine_tuned"])
    assert raced.chosen == tuned.name
    assert tuned.variant == INT8
    # 800 less 100 that are held out, of which 15 % validate.
    assert "epoch" in tuned.notes["fine_tuned"]
    assert "with 595 images" in tuned.notes["fine_tuned"]
    assert not any("not fine-tuned" in each for each in raced.warnings)
    assert compiled(wish, tmp_path).cached
    without = compiled(replace(wish, fine_tuning_epochs=0), tmp_path)
    assert "int8 loses too much, and was not fine-tuned: --fine-tuning-epochs is 0" in only(without).warnings
    assert only(without).chosen == BASE


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
def test_too_few_images_to_fine_tune_with_are_said(tmp_path: Path, network: Path) -> None:
    wish = Wish(
        FACTORY,
        (Place.parse("host/onnxruntime@1"),),
        data(tmp_path, network, 400),
        rules=Rules(max_drop=15),
        arguments=ARGUMENTS,
        weights=network,
        input_shape=(3, 8, 8),
    )
    raced = only(compiled(wish, tmp_path))
    assert raced.chosen == BASE
    (said,) = [each for each in raced.warnings if "not fine-tuned" in each]
    assert "there are 300 labelled images" in said


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
def test_a_program_is_turned_back_into_layers_and_fine_tuned(tmp_path: Path, network: Path) -> None:
    net = resnet_cifar(**ARGUMENTS)
    net.load_state_dict(load_file(network))
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    source = OutsideFile.of(tmp_path / "net.pt2")
    assert source is not None
    brought = ModelInput(source, None, (ModelFormat.ONNX,))
    work = WorkFolder(tmp_path / "work")
    services = CompileServices(SilentReporter(), work)
    with work.opened():
        model = work.run(open_model, brought, services)
        given = SamplesInput.of(data(tmp_path, network, 800), Feeding(), model)
        samples = work.run(prepare_samples, given, services)
        tuned = work.run(fine_tune, TuneInput(Tuning(brought, given, 1), 15, samples), services)
    assert set(tuned.files) == {ModelFormat.ONNX}
    assert tuned.files[ModelFormat.ONNX].digest != model.files[ModelFormat.ONNX].digest
    assert tuned.epochs == 1
    assert tuned.in_float > 0.9
    assert tuned.after > 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
@pytest.mark.parametrize("task", ["multi-label", "regression", "embedding"])
def test_every_task_is_fine_tuned_by_its_own_losses_and_metric(
    tmp_path: Path, network: Path, task: TaskKind
) -> None:
    net = resnet_cifar(**ARGUMENTS)
    net.load_state_dict(load_file(network))
    values = images(700)
    with torch.no_grad():
        outputs = net.eval()(inputs_of(values)).numpy()
    labels = {
        "multi-label": (outputs > 0).astype(np.uint8),
        "regression": outputs,
        "embedding": outputs.argmax(axis=1),
    }
    np.savez(tmp_path / "data.npz", x=values, y=labels[task])
    weights = OutsideFile.of(network)
    brought = ModelInput(Factory(FACTORY, ARGUMENTS, weights), (3, 8, 8), (ModelFormat.ONNX,))
    work = WorkFolder(tmp_path / "work")
    services = CompileServices(SilentReporter(), work)
    with work.opened():
        model = work.run(open_model, brought, services)
        given = SamplesInput.of(tmp_path / "data.npz", Feeding(), model, task)
        samples = work.run(prepare_samples, given, services)
        # A goal that no network reaches, so that it is trained.
        tuned = work.run(fine_tune, TuneInput(Tuning(brought, given, 1), -200, samples), services)
    assert tuned.files[ModelFormat.ONNX].digest != model.files[ModelFormat.ONNX].digest
    assert tuned.epochs == 1
    # The labels are what the network itself says.
    assert tuned.in_float == pytest.approx(1, abs=1e-6 if task != "embedding" else 0.3)
    assert 0.3 < tuned.after <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
def test_a_network_that_ends_in_a_sigmoid_learns_from_its_logits_and_keeps_the_sigmoid(
    tmp_path: Path, network: Path
) -> None:
    net = resnet_cifar(**ARGUMENTS)
    net.load_state_dict(load_file(network))
    ending = torch.nn.Sequential(net, torch.nn.Sigmoid()).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(ending, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    source = OutsideFile.of(tmp_path / "net.pt2")
    assert source is not None
    values = images(700)
    with torch.no_grad():
        labels = (ending(inputs_of(values)).numpy() > 0.5).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=values, y=labels)
    brought = ModelInput(source, None, (ModelFormat.ONNX,))
    work = WorkFolder(tmp_path / "work")
    services = CompileServices(SilentReporter(), work)
    with work.opened():
        model = work.run(open_model, brought, services)
        given = SamplesInput.of(tmp_path / "data.npz", Feeding(), model, "multi-label")
        samples = work.run(prepare_samples, given, services)
        tuned = work.run(fine_tune, TuneInput(Tuning(brought, given, 1), -200, samples), services)
        exported = onnxruntime.InferenceSession(work.find(tuned.files[ModelFormat.ONNX]).read_bytes())
    # Taken for logits, every probability would be a yes.
    assert tuned.in_float == pytest.approx(1)
    (outputs,) = exported.run(None, {exported.get_inputs()[0].name: inputs_of(values[:1]).numpy()})
    assert 0 < outputs.min() < 0.5 < outputs.max() < 1


def test_a_network_in_the_unit_of_the_data_learns_as_one_in_units_of_the_spread() -> None:
    spread = Regression((100.0, -3.0), (50.0, 0.01))
    own, outputs = RegressionInUnits(spread.mean, spread.std), torch.randn(20, 2)
    labels = torch.randn(20, 2)
    mean, std = torch.tensor(spread.mean), torch.tensor(spread.std)
    wanted = float(spread.label_loss(outputs, labels))
    found = own.label_loss(outputs * std + mean, labels * std + mean)
    taught = own.teacher_loss(outputs * std + mean, (labels * std + mean)[None], 4.0)
    assert float(found) == pytest.approx(wanted, rel=1e-3)
    assert float(taught) == pytest.approx(wanted, rel=1e-3)


def given_model(fmt: ModelFormat) -> GivenModel:
    image, scores = TensorSpec("input", (1, 3, 8, 8), "float32"), TensorSpec("logits", (1, 4), "float32")
    return GivenModel("net", fmt, {}, (image,), (scores,))


@pytest.mark.parametrize(
    ("fmt", "labelled", "image_shape", "said"),
    [
        (ModelFormat.ONNX, True, (8, 8, 3), "the model came as onnx"),
        (ModelFormat.TORCH, False, (8, 8, 3), "no labels"),
        (ModelFormat.TORCH, True, None, "no images"),
        (ModelFormat.TORCH, True, (8, 8, 3), "--fine-tuning-epochs is 0"),
    ],
)
def test_why_a_model_cannot_be_fine_tuned_is_known_beforehand(
    fmt: ModelFormat, labelled: bool, image_shape: tuple[int, int, int] | None, said: str
) -> None:
    file = StoredFile("samples-0", "samples.safetensors", "0" * 64)
    samples = Samples("0" * 64, file, (1, 1), labelled, False, image_shape)
    tuning: Tuning | None = None
    assert said in why_not_tuned(tuning, given_model(fmt), samples)
