from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_db.published.importers import import_table
from latency_db.store.store import open_store
from tests.latency_db.published.published_tables import cells, refusal


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch", [3, 20_000])
def test_arrays_become_one_cell_for_each_architecture_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any, save: Callable[..., None], batch: int
) -> None:
    monkeypatch.setattr("latency_db.published.arrays.BATCH", batch)
    latency = np.array([[1.5, 2.5], [np.nan, 3.5], [4.5, 0.0]], order=order)
    ops = np.array([[0, 1], [2, 3], [1, 1]], np.uint8, order=order)
    save(tmp_path / "t.npz", latency_ms=latency, device=np.array(["phone", "board"]), arch_ops=ops)
    with open_store("sqlite://") as store:
        assert import_table(store, tmp_path / "t.npz").added == 6
        assert [(row[1], row[0], row[2], row[3], row[6]) for row in cells(store)] == [
            ("board", 0, "architecture 0 0-1", 2.5e6, ""),
            ("board", 1, "architecture 1 2-3", 3.5e6, ""),
            ("board", 2, "architecture 2 1-1", None, "impossible"),
            ("phone", 0, "architecture 0 0-1", 1.5e6, ""),
            ("phone", 1, "architecture 1 2-3", None, "missing"),
            ("phone", 2, "architecture 2 1-1", 4.5e6, ""),
        ]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 4)),
    dtype=st.sampled_from(["<f4", ">f8", "<i4", "<u2"]),
    order=st.sampled_from("CF"),
    batch=st.integers(1, 40),
)
def test_any_array_is_read_block_by_block_as_numpy_reads_it(
    shape: tuple[int, int], dtype: str, order: Any, batch: int
) -> None:
    latency = np.asarray(np.arange(1, 1 + shape[0] * shape[1]).reshape(shape), dtype, order=order)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("latency_db.published.arrays.BATCH", batch)
        path = Path(folder) / "t.npz"
        np.savez(path, latency_us=latency, device=np.array([f"d{n}" for n in range(shape[1])]))
        with open_store("sqlite://") as store:
            import_table(store, path)
            found = np.array([row[3] for row in cells(store)]).reshape(shape[::-1]).T
    np.testing.assert_array_equal(found, latency.astype(float) * 1e3)


@pytest.mark.parametrize(
    ("arrays", "options", "why"),
    [
        ({"latency_ms": np.ones((3, 2)), "device": np.array(["one"])}, {}, "2 columns for 1 devices"),
        ({"latency_ms": np.ones((3, 2)), "device": np.array(["d", "d"])}, {}, "are not distinct: d, d"),
        (
            {"latency_ms": np.ones(3), "device": np.array([{"a": 1}], dtype=object)},
            {},
            "not one of numbers or texts",
        ),
        ({"latency_ms": np.array([{"a": 1}], dtype=object)}, {"device": "d"}, "not one of numbers"),
        ({"latency_ms": np.ones((2, 2, 2))}, {"device": "d"}, "not an array of numbers"),
        ({"latency_ms": np.ones(3)}, {}, "no device was given"),
        ({"latency_ms": np.ones(3), "arch_ops": np.ones((2, 4), int)}, {"device": "d"}, "each row of"),
        ({"latency_ms": np.ones(3), "arch_ops": np.ones((3, 4))}, {"device": "d"}, "whole numbers"),
        ({"latency_ms": np.ones(3), "arch_ops": np.ones((3, 1001), int)}, {"device": "d"}, "1001 columns"),
        ({"latency_ms": np.zeros((0, 1))}, {"device": "d"}, "not an array of numbers"),
        ({"latency_ms": np.ones((1, 0))}, {"device": "d"}, "not an array of numbers"),
        ({"latency_ms": np.ones(3), "device": np.zeros((2, 2))}, {}, "not a list of"),
    ],
)
def test_import_table_refuses_arrays_that_do_not_fit_together(
    tmp_path: Path, arrays: dict[str, Any], options: dict[str, str], why: str
) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    assert why in refusal(tmp_path / "t.npz", **options).why


def flipped(content: bytes) -> bytes:
    return content[:2000] + bytes(byte ^ 0x55 for byte in content[2000:2100]) + content[2100:]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("damage", [lambda content: content[:3000], flipped])
def test_import_table_refuses_damaged_archives(
    tmp_path: Path, save: Callable[..., None], damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "t.npz"
    save(path, latency_ms=np.random.default_rng(0).uniform(1, 9, (1000, 1)))
    path.write_bytes(damage(path.read_bytes()))
    assert refusal(path, device="d").why


@pytest.mark.parametrize("shape", [(10**12, 0), (10**12, 1), (0, 10**12), (10**12,)])
@pytest.mark.parametrize("name", ["latency_ms", "device", "arch_ops"])
def test_import_table_refuses_headers_that_promise_what_is_not_there(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    header = io.BytesIO()
    descr = "|S1" if name == "device" else "<i8"
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    good = {"latency_ms": np.ones(3), "device": np.array(["d"]), "arch_ops": np.ones((3, 1), int)}
    np.savez(tmp_path / "t.npz", **{key: value for key, value in good.items() if key != name})
    with zipfile.ZipFile(tmp_path / "t.npz", "a") as archive:
        archive.writestr(f"{name}.npy", header.getvalue())
    assert refusal(tmp_path / "t.npz").why
