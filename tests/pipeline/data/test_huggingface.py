from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devices.installing import how_to_install
from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.errors import DataError


def rows(count: int, classes: int = 2) -> dict[str, list[Any]]:
    images = [Image.fromarray(np.full((5, 5), 100 * (i % classes) + i, np.uint8)) for i in range(count)]
    return {"picture": images, "kind": [i % classes for i in range(count)], "note": ["x"] * count}


def saved(folder: Path, **splits: int) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "note": datasets.Value("string"),
        }
    )
    parts = {
        name: datasets.Dataset.from_dict(rows(count), features=features) for name, count in splits.items()
    }
    whole = parts["only"] if "only" in parts else datasets.DatasetDict(parts)
    whole.save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("name", ["test", "validation"])
def test_load_finds_image_and_label_by_their_features(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, train=12, **{name: 6})
    data = load(DataConfig(kind="huggingface", path=path, duplicates="keep"), seed=0)
    assert data.classes == ("cat", "dog")
    assert (len(data.train) + len(data.validation), len(data.test)) == (12, 6)
    assert ((data.test.images[:, 0, 0, 0] >= 100) == data.test.labels).all()


def test_splits_that_are_not_used_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, train=12, test=6, validation=4, extra=1)
    data = load(DataConfig(kind="huggingface", path=path, duplicates="keep"), seed=0)
    assert len(data.test) == 6
    unused = [note for note in data.notes if "not used" in note]
    assert unused == ["4 images of 'validation' are not used", "1 image of 'extra' is not used"]


def test_load_holds_out_a_test_split_when_only_one_is_saved(tmp_path: Path) -> None:
    data = load(DataConfig(kind="huggingface", path=saved(tmp_path, only=16), image_size=4), seed=0)
    assert len(data.test) == 4
    assert data.input_shape == (1, 4, 4)


def test_load_lists_the_columns_when_there_is_no_class_label(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="0 columns of type ClassLabel") as caught:
        load(DataConfig(kind="huggingface", path=tmp_path / "saved"), seed=0)
    assert "text: Value" in caught.value.why


def test_load_refuses_a_folder_that_is_not_a_saved_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="cannot be read as a saved dataset"):
        load(DataConfig(kind="huggingface", path=tmp_path), seed=0)


def test_load_names_the_extra_when_datasets_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("datasets") is not None:
        monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match="cannot be imported") as caught:
        load(DataConfig(kind="huggingface", path=tmp_path), seed=0)
    assert caught.value.fix == how_to_install("huggingface")


def _hostile(folder: Path, how: str) -> None:
    state, info = folder / "state.json", folder / "dataset_info.json"

    def change(file: Path, **values: Any) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    script = "from pathlib import Path\nPath('pwned').touch()\n"
    match how:
        case "scripts":
            for name in (f"{folder.name}.py", "dataset.py", "__init__.py", "setup.py"):
                (folder / name).write_text(script)
        case "a feature of any class":
            change(info, features={"picture": {"_type": "os.system", "command": "touch pwned"}})
        case "a builder":
            change(info, builder_name="pwn", dataset_name="pwn", script_version="pwn.py")
        case "another file":
            change(state, _data_files=[{"filename": "../../../../../../etc/passwd"}])
        case "a file of the network":
            change(state, _data_files=[{"filename": "https://localhost:9/data.arrow"}])
        case "a format of any kind":
            change(state, _format_type="custom", _format_kwargs={"transform": "os.system"})


@pytest.mark.parametrize(
    ("how", "refused"),
    [
        ("scripts", False),
        ("a builder", False),
        ("a feature of any class", True),
        ("another file", True),
        ("a file of the network", True),
        ("a format of any kind", False),
    ],
)
def test_nothing_of_a_hostile_folder_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, *, refused: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = saved(tmp_path, only=16)
    _hostile(folder, how)
    with pytest.raises(DataError, match="cannot be read as") if refused else contextlib.nullcontext():
        load(DataConfig(kind="huggingface", path=folder, image_size=4), seed=0)
    assert not list(tmp_path.rglob("pwned"))


def test_a_row_that_is_damaged_further_on_is_an_error_of_the_data(tmp_path: Path) -> None:
    folder = saved(tmp_path, only=16)
    (arrow,) = folder.glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    arrow.write_bytes(content)
    with pytest.raises(DataError):
        load(DataConfig(kind="huggingface", path=folder, image_size=4), seed=0)


def written_again(folder: Path, table: Any, compression: str | None = None) -> None:
    """The rows of a saved dataset replaced by others."""
    import pyarrow as pa

    (arrow,) = folder.glob("*.arrow")
    with pa.memory_map(str(arrow)) as source:
        metadata = pa.ipc.open_stream(source).schema.metadata
    arrow.unlink()
    table = table.replace_schema_metadata(metadata)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as out:
        out.write_table(table)


def of_rows(pictures: list[Any], kinds: Any) -> Any:
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    notes = pa.array(["x"] * len(kinds), pa.string())
    return pa.table({"picture": pa.array(pictures, picture), "kind": kinds, "note": notes})


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    folder = saved(tmp_path, only=16)
    import pyarrow as pa

    zeros = [{"bytes": bytes(1 << 20), "path": ""}] * 16
    for compression, refused in (("zstd", True), ("lz4", True), (None, False)):
        written_again(folder, of_rows(zeros, pa.array([0, 1] * 8)), compression)
        with pytest.raises(DataError) as caught:
            load(DataConfig(kind="huggingface", path=folder, image_size=4), seed=0)
        assert ("is compressed" in str(caught.value)) == refused


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, only=16)
    import pyarrow as pa

    nothing = pa.nulls(50_000_000)
    written_again(folder, pa.table({"picture": nothing, "kind": nothing, "note": nothing}))
    with pytest.raises(DataError, match=r"50,000,000 rows|cannot be read"):
        load(DataConfig(kind="huggingface", path=folder, image_size=4), seed=0)


@pytest.mark.parametrize("where", ["rows.bin", "../rows.bin"])
def test_what_the_folder_names_is_looked_at_whatever_it_is_called(tmp_path: Path, where: str) -> None:
    """Beside a sound file that nothing names."""
    folder = saved(tmp_path, only=16)
    import pyarrow as pa

    (sound,) = folder.glob("*.arrow")
    content = sound.read_bytes()
    rows = [{"bytes": bytes(1 << 20), "path": ""}] * 16
    written_again(folder, of_rows(rows, pa.array([0, 1] * 8)), "zstd")
    sound.rename(folder / where)
    sound.write_bytes(content)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": where}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"is compressed|is not in the folder"):
        load(DataConfig(kind="huggingface", path=folder, image_size=4), seed=0)
