from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latency_db.errors import StoreError
from latency_db.published.importers import import_table
from latency_db.store.maintenance import check
from latency_db.store.store import Store, open_store
from tests.latency_db.postgresql_server import PostgresqlServer
from tests.latency_db.published.published_tables import cells, refusal, table
from tests.places import SHARED


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_csv_is_published_latencies_and_never_a_measurement(store: Store, tmp_path: Path, name: str) -> None:
    imported = import_table(store, table(tmp_path / name), device="Pixel 1")
    assert (imported.cells, imported.added) == (4, 4)
    assert [finding.code for finding in imported.findings] == ["missing", "impossible"]
    assert cells(store) == [
        (0, "Pixel 1", "block=Conv in_h=224", 4.5e6, 949, 0.25e12, ""),
        (1, "Pixel 1", "block=Logits in_h=7", 0.5e6, 949, 0.01e12, ""),
        (2, "Pixel 1", "block=broken in_h=7", None, None, None, "impossible"),
        (3, "Pixel 1", "block=lost in_h=7", None, None, None, "missing"),
    ]
    assert store.count() == 0


def test_a_table_is_not_imported_again_as_that_of_another_device(store: Store, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    import_table(store, path, device="Pixel 1")
    with pytest.raises(StoreError, match="already, as measured on Pixel 1") as caught:
        import_table(store, path, device="Pixel 2")
    assert "--device 'Pixel 1'" in caught.value.fix
    assert len(cells(store)) == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from latency_db.errors import StoreError
from latency_db.published.importers import import_table
from latency_db.store.store import open_store

def die_while_it_is_kept(done, total):
    if done > 0.8 * total:
        os.kill(os.getpid(), signal.SIGKILL)

with open_store(sys.argv[1]) as store:
    import_table(store, Path(sys.argv[2]), on_progress=die_while_it_is_kept)
"""


def test_an_import_that_was_killed_goes_on_where_it_was_and_adds_nothing_twice(
    location: str, tmp_path: Path
) -> None:
    rows = 50_000
    lines = (f"b{row // 2},{('phone', 'board')[row % 2]},{row + 1}.5\n" for row in range(rows))
    path = table(tmp_path / "t.csv", "block,device,latency_ms\n" + "".join(lines))
    ended = subprocess.run([sys.executable, "-c", KILLED, location, path], check=False)
    assert ended.returncode == -signal.SIGKILL
    with open_store(location) as store:
        kept = len(cells(store))
        assert 0 < kept < rows
        assert any(f"{kept} of {rows} rows are there" in problem for problem in check(store).problems)
        assert import_table(store, path).added == rows - kept
        assert import_table(store, path).added == 0
        assert sorted(row[0] for row in cells(store)) == list(range(rows))
        assert check(store).problems == ()


FULL = """
import resource, signal, sys
from pathlib import Path
from latency_db.errors import StoreError
from latency_db.errors import StoreError
from latency_db.published.importers import import_table
from latency_db.store.store import open_store

with open_store(sys.argv[1]) as store:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20,) * 2)
    try:
        import_table(store, Path(sys.argv[2]), device="d")
    except StoreError as error:
        print(error.fix)
"""


def test_an_import_onto_a_full_disk_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    location, path = str(tmp_path / "latency.db"), tmp_path / "t.csv"
    table(path, "block,latency_ms\n" + "".join(f"{row:050},{row}.5\n" for row in range(1, 80_001)))
    command = [sys.executable, "-c", FULL, location, str(path)]
    assert (
        "free some disk space" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    with open_store(location) as store:
        kept = len(cells(store))
        assert 0 < kept < 80_000
        assert import_table(store, path, device="d").added == 80_000 - kept
        assert check(store).problems == ()


def test_an_import_goes_on_when_the_server_comes_back(server: PostgresqlServer, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "block,latency_ms\n" + "".join(f"b{n},{n}\n" for n in range(1, 50_001)))
    stops = iter([0.7, 0.8])
    stop = next(stops)

    def interrupt(done: int, total: int) -> None:
        nonlocal stop
        if done > stop * total:
            stop = next(stops, 2)
            server.stop()
            server.start()

    with open_store(server.new_database()) as store:
        assert import_table(store, path, device="d", on_progress=interrupt).added == 50_000
        assert stop == 2
        assert check(store).problems == ()


def test_import_table_tells_how_far_it_is(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, latency_ms=np.random.default_rng(0).uniform(1, 9, (70_000, 1)))
    told: list[tuple[int, int]] = []
    import_table(store, path, device="d", on_progress=lambda done, total: told.append((done, total)))
    total = 3 * path.stat().st_size
    assert told == sorted(told)
    assert len(told) == 3 * 4
    assert told[-1] == (total, total)


def test_import_table_refuses_pickles_and_unknown_files(tmp_path: Path) -> None:
    assert "pickle" in refusal(table(tmp_path / "t.pickle"), device="d").why
    assert "suffix" in refusal(table(tmp_path / "t.xlsx"), device="d").why
    assert "No such file" in refusal(tmp_path / "missing.csv", device="d").why
    (tmp_path / "folder.csv").mkdir()
    assert "is not a regular file" in refusal(tmp_path / "folder.csv", device="d").why


LIMITED = """
import resource, sys
from pathlib import Path
from latency_db.errors import StoreError
from latency_db.published.importers import import_table
from latency_db.store.store import open_store

with open_store(sys.argv[1]) as store:
    import_table(store, Path(sys.argv[2]))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[4]),) * 2)
    print(import_table(store, Path(sys.argv[3])).added)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the address space is known on Linux only")
@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_half_a_million_cells_are_imported_in_little_memory(tmp_path: Path, suffix: str) -> None:
    """The limit holds beyond what a table of two batches takes; a row of objects is half a kilobyte."""
    devices = np.array(["phone", "board", "watch", "server"])
    for name, rows in (("small", 10_000), ("large", 125_000)):
        latency = np.random.default_rng(0).uniform(1, 9, (rows, 4)).round(4)
        if suffix == ".npz":
            ops = np.random.default_rng(1).integers(0, 4, (rows, 6))
            np.savez(tmp_path / f"{name}.npz", latency_ms=latency, device=devices, arch_ops=ops)
            continue
        with (tmp_path / f"{name}.csv").open("w") as stream:
            stream.write("architecture,device,latency_ms\n")
            for row, values in enumerate(latency.tolist()):
                stream.writelines(f"{row},{devices[n]},{value}\n" for n, value in enumerate(values))
    files = [tmp_path / f"{name}{suffix}" for name in ("small", "large")]
    limit_bytes = 64 << 20
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "latency.db"), *map(str, files), str(limit_bytes)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "500000\n", ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="LATHE_SHARED_DATA names no folder with the published tables")
def test_published_tables_are_imported_with_their_known_faults(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "latency.db")) as store:
        pixel = import_table(store, SHARED / "block_tables" / "proxyless_pixel1.csv", device="Pixel 1")
        assert (pixel.added, pixel.findings) == (72, ())
        xeon = import_table(store, SHARED / "block_tables" / "tfnas_xeon6130_bs1.csv.gz", device="Xeon")
        assert [finding.code for finding in xeon.findings] == ["impossible"]
        found = import_table(store, SHARED / "nasbench201" / "nasbench201.npz")
        assert found.added == 15625 * 19
        by_code: dict[str, set[str]] = {}
        for finding in found.findings:
            by_code.setdefault(finding.code, set()).add(finding.device)
        assert by_code["whole-milliseconds"] == {"samsung_a50", "samsung_s7", "essential_ph_1"}
        assert "pixel3" in by_code["failed-run"]
        assert "2080ti_256" in by_code["additive"]
