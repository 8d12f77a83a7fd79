"""What a search is worth: its students beside those made by hand or at random, all within one budget.

python tools/studies/worth.py --data ARCHIVE.npz --weights resnet56.safetensors [--ensemble FILE=DEPTH ...]
    [--recipe RECIPE] [--set KEY=VALUE ...] [--shares 0.5,0.25] [--arms NAME,NAME] [--seeds 1] [--work FOLDER]
    [--page PAGE --machine WORDS]

The teacher is a ResNet-56 that others trained; it is fine-tuned on the data first. RECIPE is what all have in
common, worth.toml by default: data, targets, short trainings, and the final training, which is the same for
all. Each arm is a recipe of its own, which ``lathe run`` would run to a verified bundle; its budgets are a
share of the teacher's latency.

- mobilenetv2: MobileNetV2 at the widest multiplier that keeps the budgets; narrower, shallower: the teacher's
  kind with fewer channels inside the blocks, or fewer blocks. All three from new weights.
- narrower-inherited, shallower-inherited, mixed-inherited: likewise, with the weights that are left.
- random-0 to random-4: of the mobile space, within the budgets.
- search, akd, oracle, dna, subgraph: Lathe's methods, with the same minutes of search at most, but for dna,
  which evaluates no candidates. oracle has the fine-tuned networks of --ensemble as further teachers; its
  budgets are in milliseconds, shares of what the one teacher took in another arm.
- subgraph-dfa: subgraph, with searched feature aggregation beside the soft targets in the final training.
- subgraph-int8, shallower-inherited-int8, mixed-inherited-int8: likewise, with the targets in int8; the
  teacher to which the budgets refer is in float, so that they are the same.

FOLDER keeps all that runs did, and results.jsonl a line for each arm, share and seed: a study that was ended
goes on. docs/results/worth has that file and the fine-tuned teacher of the published study: a copy of it as
FOLDER goes on with that one. PAGE gets the table and a plot.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from units import Units
from worth_page import write_page

from devices.agent.machine import cpu_name
from pipeline.data.base import Preprocessing
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.training import fit
from pipeline.errors import BudgetError
from pipeline.progress import ConsoleReporter
from pipeline.recipe.loading import Recipe, load_recipe
from pipeline.run import run, search
from pipeline.teachers.resnet import resnet_cifar
from pipeline.work.disk import write_atomically
from pipeline.work.folder import WorkFolder

FINE_TUNING = TrainingSettings(epochs=3, batch_size=128, learning_rate=0.02, augment="crop-flip")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""With which the published networks were trained."""
FACTORY = "pipeline.teachers.resnet:resnet_cifar"
RANDOM = 5
MULTIPLIERS = (1.0, 0.75, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1)
# Expansion, channels, layers, stride: table 2 of 1801.04381, with the strides usual at 32x32.
MOBILENETV2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FP32 = ["search.training.precision=fp32", "distil.precision=fp32"]
"""For students with depthwise convolutions, which processors train in bf16 more slowly, not faster."""
MINUTES = "search.minutes=15"
SEARCH = [MINUTES, *FP32]
SUBGRAPH = [
    MINUTES,
    "method=subgraph",
    "search.reevaluated=0",
    "search.training.learning_rate=0.02",
    'subgraph.selection={epochs = 1, batch_size = 128, augment = "crop-flip", precision = "bf16"}',
]
"""As in the embedded recipe of CIFAR-10."""
LABELS, SOFT_TARGETS = '{kind = "labels", weight = 0.1}', '{kind = "soft_targets", weight = 0.9}'
DFA = '{kind = "feature_aggregation", search = {epochs = 2, warmup_epochs = 1}}'


def mobilenetv2(multiplier: float) -> list[str]:
    """The settings of a space whose only member is MobileNetV2 of this width."""

    def scaled(channels: int) -> int:
        # Multiples of 8, as in the published networks, but never more than a tenth narrower.
        found = max(8, int(channels * multiplier + 4) // 8 * 8)
        return found + 8 if found < 0.9 * channels * multiplier else found

    stages = ", ".join(
        f"{{widths = [{scaled(channels)}], depths = [{layers}], stride = {stride}, kernels = [3], "
        f"expansions = [{expansion}], squeeze_excite = [0.0]}}"
        for expansion, channels, layers, stride in MOBILENETV2
    )
    return [
        *FP32,
        f"space.stem_width={scaled(32)}",
        f"space.head_width={max(1280, scaled(1280))}",
        f"space.stages=[{stages}]",
        "search.evaluations=1",
        "search.strategy=random",
        "search.reevaluated=0",
    ]


def by_hand(proposal: str, weights: str) -> list[str]:
    return ["method=subgraph", f'subgraph.proposals=["{proposal}"]', f"subgraph.weights={weights}"]


def teachers(tuned: Mapping[int, Path]) -> str:
    """The setting that names these networks as teachers, by depth."""
    tables = [
        f"{{kind = 'factory', factory = '{FACTORY}', arguments = {{depth = {depth}}}, "
        f"weights = '{path.absolute()}', mean = {list(MEAN)}, std = {list(STD)}}}"
        for depth, path in tuned.items()
    ]
    return f"teacher=[{', '.join(tables)}]"


def arms(tuned: Mapping[int, Path]) -> dict[str, list[list[str]]]:
    """By name the settings to try, one after the other until one has a member within the budgets.

    Args:
        tuned: teachers for the method that takes several.
    """
    int8 = ["target.0.name=host/onnxruntime:int8@1", "target.1.name=host/litert:int8@1"]
    return {
        "mobilenetv2": [mobilenetv2(each) for each in MULTIPLIERS],
        "narrower": [by_hand("narrower", "fresh")],
        "shallower": [by_hand("shallower", "fresh")],
        **{f"{each}-inherited": [by_hand(each, "inherited")] for each in ("narrower", "shallower", "mixed")},
        **{
            f"random-{number}": [
                [*FP32, "search.strategy=random", "search.evaluations=1", f"seed={100 + number}"]
            ]
            for number in range(RANDOM)
        },
        "search": [SEARCH],
        "akd": [[*SEARCH, "method=akd"]],
        "oracle": [[*SEARCH, "method=oracle", teachers(tuned)]],
        "dna": [[*FP32, "method=dna", "dna.training.epochs=2", "dna.training.batch_size=128"]],
        "subgraph": [SUBGRAPH],
        "subgraph-dfa": [[*SUBGRAPH, f"distil.loss=[{LABELS}, {SOFT_TARGETS}, {DFA}]"]],
        "subgraph-int8": [[*SUBGRAPH, *int8]],
        **{
            f"{each}-inherited-int8": [[*by_hand(each, "inherited"), *int8]]
            for each in ("shallower", "mixed")
        },
    }


def fine_tuned(weights: Path, depth: int, data: Path, folder: Path) -> Path:
    """The weights after training on the data, with the published normalisation; kept."""
    out = folder / f"resnet{depth}.safetensors"
    if not out.exists():
        config = DataConfig(kind="npz", path=data, image_size=32, validation=0.1)
        dataset = replace(load(config, seed=0), preprocessing=Preprocessing(MEAN, STD))
        network = resnet_cifar(depth=depth)
        network.load_state_dict(load_file(weights), strict=False)
        torch.manual_seed(0)
        fit(network, dataset, FINE_TUNING, seed=0, checkpoint=folder / f"resnet{depth}.pt")
        write_atomically(out, save(network.state_dict()))
    return out


def budgets(name: str, share: str, done: Mapping[str, Any]) -> list[str]:
    """Shares of the teacher's latency; in milliseconds where the recipe's teacher is an ensemble.

    Raises:
        SystemExit: no other arm has measured the teacher on this machine.
    """
    if name != "oracle":
        return [f"target.*.budget={share}x teacher"]
    rows = [row for row in done.values() if row is not None and row.get("processor") == cpu_name()]
    measured = [row["teacher_ms"] for row in rows if "teacher_ms" in row]
    if not measured:
        raise SystemExit("run another arm on this machine first: oracle's budgets are shares of its teacher")
    found = [float(share) * each["value"] for each in measured[-1].values()]
    return [f"target.{place}.budget={limit_ms:.4f}ms" for place, limit_ms in enumerate(found)]


class Listening(ConsoleReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Print one line."""
        self.notes.append(text)
        super().note(text)


def proposed(loaded: Recipe, text: str, work: WorkFolder, db: str) -> list[Any]:
    """The stages up to the search of a recipe with one proposal.

    Raises:
        BudgetError: the proposal has no member within the budgets; a run would then search for others.
    """
    with Listening() as reporter:
        found = search(loaded, text, work, db, reporter).to_json()
    (kind,) = loaded.subgraph.proposals
    if not any(each.endswith(f"was proposed by '{kind}'") for each in reporter.notes):
        raise BudgetError(f"'{kind}' has no member within the budgets")
    stages: list[Any] = found["stages"]
    return stages


def result_of(recipe: str, attempts: Sequence[Sequence[str]], common: Sequence[str], folder: Path) -> Any:
    """What became of an arm; None where no attempt has a member within the budgets."""
    for settings in attempts:
        loaded, text = load_recipe(recipe, [*common, *settings])
        began = time.monotonic()
        work, db = WorkFolder(folder / "work"), str(folder / "latency.db")
        try:
            single = loaded.method == "subgraph" and len(loaded.subgraph.proposals) == 1
            stages = proposed(loaded, text, work, db) if single else []
            with ConsoleReporter() as reporter:
                found = run(loaded, text, work, db, reporter).to_json()
        except BudgetError:
            continue
        winner = found["winner"]
        return {
            "processor": cpu_name(),
            "accuracy": min(each["test_accuracy"] for each in winner["targets"]),
            "teacher_accuracy": found["teacher"]["test_accuracy"],
            "teacher_ms": found["teacher"]["measured_ms"],
            "parameters": winner["parameters"],
            "macs": winner["macs"],
            "targets": {
                each["target"]: {
                    "accuracy": each["test_accuracy"],
                    "budget_used": each["budget_used"],
                    "kept": each["feasible"],
                    "measured_ms": each["measured_ms"],
                }
                for each in winner["targets"]
            },
            "stages": [*stages, *found["stages"]],
            "seconds": round(time.monotonic() - began, 1),
            "settings": list(settings),
        }
    return None


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default=str(Path(__file__).with_name("worth.toml")))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--ensemble", action="append", default=[], metavar="FILE=DEPTH")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--shares", default="0.5,0.25")
    parser.add_argument("--arms", default="")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("worth-study"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--machine", default="this machine", help="where it ran, for the page")
    arguments = parser.parse_args()
    folder: Path = arguments.work
    folder.mkdir(parents=True, exist_ok=True)
    tuned = {56: fine_tuned(arguments.weights, 56, arguments.data, folder)}
    for file, _, depth in (each.rpartition("=") for each in arguments.ensemble):
        tuned[int(depth)] = fine_tuned(Path(file), int(depth), arguments.data, folder)
    every = arms(tuned)
    units = Units(folder / "results.jsonl")
    for seed in range(arguments.seeds):
        for share in arguments.shares.split(","):
            for name in arguments.arms.split(",") if arguments.arms else every:
                common = [
                    f"data.path={arguments.data.absolute()}",
                    teachers({56: tuned[56]}),
                    *budgets(name, share, units.done),
                    f"name=worth-{name}",
                    f"seed={seed}",
                    *arguments.set,
                ]
                units.get(
                    f"{name} {share} {seed}",
                    lambda name=name, common=common: result_of(arguments.recipe, every[name], common, folder),
                )
    if arguments.page:
        write_page(units.done, arguments.page, arguments.machine)


if __name__ == "__main__":
    main()
