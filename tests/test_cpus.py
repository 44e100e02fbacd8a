"""How many CPUs there are to use, as control groups of both versions say it."""

import os
from pathlib import Path

import pytest

from visa_jupyter_proxy.settings.cpus import usable

MANY = 64
V1 = "9:name=systemd:/\n2:cpu,cpuacct:{}\n1:cpuset:/x\n"
V2 = "0::{}\n"


@pytest.fixture(autouse=True)
def _a_large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)))


def _usable(directory: Path, groups: str, files: dict[str, str]) -> int:
    listed, root = directory / "cgroup", directory / "fs"
    listed.write_text(groups)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return usable(listed, root)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("max 100000\n", MANY),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("99900000 100000\n", MANY),
        ("", MANY),
        ("200000 0\n", MANY),
        ("x y\n", MANY),
    ],
)
def test_a_quota(tmp_path: Path, written: str, count: int) -> None:
    """In processors, rounded up; what makes no sense limits nothing."""
    assert count == _usable(tmp_path, V2.format("/"), {"cpu.max": written})


@pytest.mark.parametrize(
    ("quota", "count"), [("300000\n", 3), ("-1\n", MANY), ("250000\n", 3)], ids=["3", "none", "2.5"]
)
def test_version_1(tmp_path: Path, quota: str, count: int) -> None:
    """Two files, in the hierarchy of the CPU; a container finds its own at the root."""
    files = {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000\n"}
    assert count == _usable(tmp_path, V1.format("/docker/0123abc"), files)


def test_the_smallest_of_all_groups_around_us(tmp_path: Path) -> None:
    """A group has no more than those that it is in."""
    files = {"a/cpu.max": "200000 100000", "a/b/cpu.max": "800000 100000", "a/b/c/cpu.max": "max 100000"}
    assert 2 == _usable(tmp_path, V2.format("/a/b/c"), files)


def test_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `taskset` and cpusets leave."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert 2 == _usable(tmp_path, V2.format("/"), {"cpu.max": "400000 100000"})


def test_without_control_groups(tmp_path: Path) -> None:
    """The affinity alone counts."""
    assert MANY == usable(tmp_path / "nothing", tmp_path / "nowhere")
