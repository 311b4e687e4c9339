from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.data_folder import DataFolder, make
from topology.errors import FolderInUse, Unavailable

HOLDER = """
import sys
from pathlib import Path
from cli.data_folder import DataFolder
DataFolder(Path(sys.argv[1])).hold()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    with DataFolder(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_a_second_process_is_refused_with_the_first_ones_id_until_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUse) as refused:
            DataFolder(tmp_path).hold()
        assert f"process {holder.pid}" in str(refused.value)
        assert str(tmp_path) in str(refused.value)
        assert "--data" in str(refused.value)
        holder.kill()
        holder.wait()
        with DataFolder(tmp_path):
            pass


def test_a_folder_given_up_can_be_taken_again(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.hold()
    folder.hold()
    with pytest.raises(FolderInUse):
        DataFolder(tmp_path).hold()
    folder.release()
    folder.release()
    with DataFolder(tmp_path):
        pass


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    for path in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(Unavailable, match="--data") as refused:
            make(path)
        assert str(path) in str(refused.value)


def test_a_folder_on_a_disk_that_takes_no_writing_is_named() -> None:
    with pytest.raises(Unavailable, match="--data"):
        make(Path("/proc/eventsink"))


def test_a_folder_of_somebody_else_is_named() -> None:
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(Unavailable, match="Permission denied"):
            make(Path("/etc"))
    finally:
        if root:
            os.seteuid(0)
