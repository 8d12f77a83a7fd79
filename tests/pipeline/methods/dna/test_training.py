import pytest
import torch

from pipeline.errors import WorkFolderError
from pipeline.methods.dna.errors import DnaError
from pipeline.methods.dna.features import BlockFeatures
from pipeline.methods.dna.supernet import Supernet, block_supernets
from pipeline.methods.dna.train import BlockTraining
from tests.pipeline.methods.dna.dna_parts import SETTINGS, SHAPE, dataset, space, teacher

DATA, SPACE, TEACHER = dataset(), space(), teacher()
SHAPES = (SHAPE, *TEACHER.shapes)


def supernets(block=1, seed=0):
    return block_supernets(SPACE, block, SHAPES[block], SHAPES[block + 1], seed)


def train(cells, block=1, *, checkpoint=None, seed=5, rate=0.005, **changes):
    training = BlockTraining(SETTINGS.model_copy(update=changes), rate, seed)
    features = BlockFeatures(TEACHER, block)
    return training.run(cells, features, DATA.train, DATA.preprocessing, checkpoint=checkpoint)


def states(cells):
    return [{name: t.clone() for name, t in cell.state_dict().items()} for cell in cells]


def same(one, other):
    return all(torch.equal(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_every_path_of_every_cell_goes_from_the_teachers_features_to_the_teachers_features(block):
    generator = torch.Generator().manual_seed(0)
    for cell in supernets(block):
        for _ in range(4):
            path = cell.draw(generator)
            assert cell(torch.randn(2, *SHAPES[block]), path).shape[1:] == SHAPES[block + 1]


def test_the_middle_of_a_cell_has_the_students_width():
    first, last = supernets(1)[1].candidates()
    assert first[0].layers[-1][0].out_channels == 4
    assert last[0].layers[-1][0].out_channels == SHAPES[2][0]


def test_the_first_block_starts_with_the_stem_and_the_image():
    for cell in supernets(0):
        assert cell.choices[0] == 1
        assert cell.candidates()[0][0][0].in_channels == SHAPE[0]


def test_paths_are_drawn_uniformly():
    net = Supernet([[torch.nn.Identity()] * 1, [torch.nn.Identity(), torch.nn.ReLU()]])
    generator = torch.Generator().manual_seed(0)
    drawn = [net.draw(generator) for _ in range(2000)]
    assert set(drawn) == {(0, 0), (0, 1)}
    assert sum(path[1] for path in drawn) / len(drawn) == pytest.approx(0.5, abs=0.04)


def test_a_step_changes_the_weights_of_one_path_and_no_others():
    cell = supernets()[1]
    before = states([cell])[0]
    train([cell], epochs=1, batch_size=len(DATA.train))
    changed = {
        name.split(".")[1:3] == [str(layer), str(index)] and (layer, index)
        for name, tensor in cell.state_dict().items()
        for layer in range(2)
        for index in range(2)
        if name.split(".")[1:3] == [str(layer), str(index)] and not torch.equal(tensor, before[name])
    }
    assert sorted(layer for layer, _ in changed) == [0, 1]


def test_training_lowers_the_loss():
    losses = train(supernets(), epochs=6)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_training_repeats_for_a_seed_and_not_for_another(augment):
    one, other, third = supernets(), supernets(), supernets()
    train(one, epochs=1, augment=augment)
    train(other, epochs=1, augment=augment)
    train(third, epochs=1, augment=augment, seed=6)
    assert same(states(one), states(other))
    assert not same(states(one), states(third))


def test_training_goes_on_from_a_checkpoint_exactly(tmp_path):
    whole, cut = supernets(), supernets()
    losses = train(whole, epochs=4)
    train(cut, epochs=2, checkpoint=tmp_path / "c.safetensors")
    resumed = supernets(seed=99)
    assert train(resumed, epochs=4, checkpoint=tmp_path / "c.safetensors") == losses
    assert same(states(resumed), states(whole))


def test_finished_checkpoint_gives_the_weights_without_training(tmp_path):
    cells, again = supernets(), supernets(seed=99)
    losses = train(cells, checkpoint=tmp_path / "c.safetensors")
    written = (tmp_path / "c.safetensors").stat().st_mtime_ns
    assert train(again, checkpoint=tmp_path / "c.safetensors") == losses
    assert same(states(again), states(cells))
    assert (tmp_path / "c.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_or_foreign_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "c.safetensors"
    if content is None:
        train(supernets(2), 2, epochs=1, checkpoint=path)
    else:
        path.write_bytes(content)
    with pytest.raises(WorkFolderError, match="cannot be used"):
        train(supernets(), checkpoint=path)


def test_diverged_training_says_so():
    with pytest.raises(DnaError, match="block 2 diverged"):
        train(supernets(), rate=1e30)


def test_global_random_state_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train(supernets(), epochs=1)
    assert torch.rand(1) == expected
