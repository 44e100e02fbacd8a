"""The pinned versions belong to `pyproject.toml`, and nothing is installed without a hash."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

OTHERS = ("requirements-dev.txt", "deploy/requirements.txt", "deploy/requirements-build.txt")

EXTRAS = PROJECT["project"]["optional-dependencies"].values()
RUNTIME = [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS for one in extra)]
DEVELOPMENT = RUNTIME + PROJECT["dependency-groups"]["dev"]


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def _pinned(file: str) -> dict[str, str]:
    """Return each pinned package with what stands behind its version."""
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    return {_name(entry): entry for entry in entries}


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("requirements.txt", [*RUNTIME, "hatchling"]),
        ("requirements-dev.txt", [*DEVELOPMENT, "hatchling"]),
        ("deploy/requirements.txt", PROJECT["project"]["dependencies"]),
        ("deploy/requirements-build.txt", ["hatchling"]),
    ],
)
def test_everything_that_is_needed_is_pinned(file: str, wanted: list[str]) -> None:
    """What `pyproject.toml` asks for, and the build backend, have a version; otherwise: `make pins`."""
    assert set() == {_name(one) for one in wanted} - set(_pinned(file))


@pytest.mark.parametrize("file", ["requirements.txt", *OTHERS])
def test_every_pin_has_a_hash_and_no_address(file: str) -> None:
    """Each package has one exact version and a SHA-256; where it comes from is left to pip's settings."""
    pinned = _pinned(file)
    assert [] == [
        name for name, entry in pinned.items() if not re.search(r"==\S+.*\n? +--hash=sha256:", entry)
    ]
    hashes = re.findall(r"--hash=(\S+)", (ROOT / file).read_text())
    assert [] == [one for one in hashes if not re.fullmatch(r"sha256:[0-9a-f]{64}", one)]
    assert "://" not in (ROOT / file).read_text()


@pytest.mark.parametrize("file", OTHERS)
def test_the_files_agree(file: str) -> None:
    """A package in two files has the same version: what is tested is what runs."""
    demo, everything = _pinned("requirements.txt"), _pinned(file)
    version = re.compile(r"==(\S+)")
    assert set() == {
        name
        for name in demo.keys() & everything.keys()
        if version.findall(demo[name]) != version.findall(everything[name])
    }
