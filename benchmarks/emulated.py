"""Instructions, user and kernel, on any machine: the benchmark runs in an emulated one that counts them.

    make bench-emulated                             # all proxies, five scenarios: half an hour
    make bench-emulated ONLY="open openkernel" PROXIES="ours chp" WARM_UP=8
    python -m benchmarks.emulated --checkout ../other-branch --only open --proxies ours

Virtual machines seldom let `perf` count. QEMU can be told that every instruction takes a nanosecond
(`-icount shift=0`): then the CPU time that Linux in there keeps for a process is what was executed for it, in
the kernel, too. A loop of known length is run first, and has to be counted within 1 %. Counts repeat within 1
or 2 %, whatever else this machine does. Latency and memory of such a machine mean nothing, and are left out.

What is executed is Debian's: kernel, Python, nginx, HAProxy, wrk and node of the release `SUITE`. Only the
packages of `deploy/requirements.txt` come from where pip finds them, and configurable-http-proxy from where
npm does. All of it is the RAM disk with which the machine starts, and results leave it by a serial line.

- There is one CPU, for a second would take its turns by the first one's clock. Proxy, clients and instances
  alternate on it, so a proxy finds more to do at once than on a CPU of its own, which is a little cheaper.
- A compiler that works at run time is not done after the usual warm-up: V8's code takes about twice as much
  after 2 s as after 8 s. The warm-up stands with the results.
- The CPU is one of 2008, Nehalem, which copies 8 bytes by an instruction. By one of later CPUs' instructions
  the kernel copies a whole buffer, and QEMU would count each of its bytes: 64 KiB look dearer than to perf.

Wants an amd64 machine with four packages (`_PROGRAMS`), and says which are missing. To install those is all
that root is needed for, where users may make namespaces as Debian lets them (mmdebstrap(1), on its mode
"unshare"). Debian's packages are fetched once, from where this machine's apt has its own, and pip's once
for each `deploy/requirements.txt`. Removing `.cache/emulated` has them fetched anew.
"""

import argparse
import ctypes
import hashlib
import json
import mmap
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from benchmarks import command, proxies
from benchmarks.__main__ import parsed, write
from benchmarks.command import say
from benchmarks.processes import Failed, program
from benchmarks.report import CPU_TIME, INSTRUCTIONS, Results, tables
from benchmarks.world import ROOT

SUITE: Final = "trixie"
_PYTHON: Final = "3.13"
_PACKAGES: Final = "linux-image-cloud-amd64 python3 nodejs nginx-light haproxy wrk iproute2 ca-certificates"
_PROGRAMS: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "bsdtar": "libarchive-tools",
}
_LEFT_OUT: Final = "boot usr/lib/modules usr/lib/klibc usr/bin/perl?* usr/share/doc usr/share/man"
"""Of Debian's files. Only in here are hard links, which bsdtar cannot take from one format to the other."""

_CACHE: Final = ROOT / ".cache/emulated"

# The RAM disk, packed and unpacked, takes a gigabyte.
_MACHINE: Final = (
    "setpriv --pdeathsig=KILL qemu-system-x86_64 -accel tcg -icount shift=0,sleep=off -cpu Nehalem -m 4G"
    " -nodefaults -no-reboot -display none -serial stdio"
)

# What a CPU of today needs no remedy for is not what a proxy costs; and Linux shall not doubt the clock.
_KERNEL_OPTIONS: Final = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"

_LOOP: Final = 100_000_000
_TOLERANCE: Final = 0.01

_DEFAULTS: Final = "--rounds 1 --seconds 2 --only small stream connection open openkernel"

_INIT: Final = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/src:/site
python3 -c 'from benchmarks import emulated; print(emulated.loop())' >/dev/ttyS1 &&
  python3 -m benchmarks {arguments} --output /dev/ttyS1 >/dev/null
echo o >/proc/sysrq-trigger
exec sleep infinity
"""


def loop() -> int:
    """Execute `_LOOP` instructions, and return the nanoseconds of CPU time that this took."""
    # mov ecx, _LOOP / 2; again: dec ecx; jnz again; ret
    code = b"\xb9" + (_LOOP // 2).to_bytes(4, "little") + b"\xff\xc9\x75\xfc\xc3"
    with mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        memory.write(code)
        place = ctypes.c_char.from_buffer(memory)
        function = ctypes.CFUNCTYPE(None)(ctypes.addressof(place))
        before = time.process_time_ns()
        function()
        after = time.process_time_ns()
        del place  # or the memory cannot be given back
    return after - before


def counted(said: str) -> Results:
    """Read what the machine has said: what the loop took, and the results, as instructions.

    Raises `Failed` when that is not complete, or when a nanosecond is not an instruction.
    """
    took, _, text = said.partition("\n")
    try:
        nanoseconds, results = int(took), Results.from_json(json.loads(text))
    except ValueError:
        raise Failed("the machine ended without results: what it has said is above") from None
    if abs(nanoseconds / _LOOP - 1) > _TOLERANCE:
        raise Failed(f"a loop of {_LOOP:,} instructions was counted as {nanoseconds:,}")
    results.about |= {"loop": nanoseconds / _LOOP, "counted": [INSTRUCTIONS]}
    for row in results.rows.values():
        for samples in row.samples.values():
            samples[:] = [{INSTRUCTIONS: one[CPU_TIME] * 1000} for one in samples if CPU_TIME in one]
    return results


def run(arguments: Sequence[str], checkout: Path) -> Results:
    """Start the machine, have the proxy of `checkout` measured in it, and return what was counted."""
    if lacking := [package for name, package in _PROGRAMS.items() if program(name) is None]:
        raise Failed(f"missing:  apt-get install --no-install-recommends {' '.join(lacking)}")
    _CACHE.mkdir(parents=True, exist_ok=True)
    linux, debian = _debian()
    site = _site(checkout / "deploy/requirements.txt")
    with tempfile.TemporaryDirectory(dir=_CACHE) as name:
        folder = Path(name)
        init, disk, said = folder / "init", folder / "disk", folder / "said"
        init.write_text(_INIT.format(arguments=shlex.join(arguments)))
        init.chmod(0o755)
        node = ["node_modules"] if proxies.CHP.exists() else []
        benchmark: list[str | Path] = ["-C", ROOT, "benchmarks", *node]
        proxy: list[str | Path] = ["-C", checkout, "src", "-C", site.parent, site.name]
        cpio = ["bsdtar", "--format=newc", "--uid=0", "--gid=0", "-cf"]
        _called(*cpio, disk, f"@{debian}", "-C", folder, init.name, *benchmark, *proxy)
        machine = [*_MACHINE.split(), "-serial", f"file:{said}"]
        _called(*machine, "-kernel", linux, "-initrd", disk, "-append", _KERNEL_OPTIONS)
        return counted(said.read_text())


def _debian() -> tuple[Path, Path]:
    """Return Linux, and the archive of Debian's files; makes them when they are not there."""
    linux, debian = _CACHE / "linux", _CACHE / "debian.cpio"
    if not debian.exists():
        say(f"Fetching Debian {SUITE} ...")
        ours = ["apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
        mirrors = subprocess.run(ours, check=True, capture_output=True, text=True).stdout.split()
        with tempfile.TemporaryDirectory(dir=_CACHE) as name:
            tar, cpio = Path(name, "tar"), Path(name, "cpio")
            # Without a mirror (this is no Debian), mmdebstrap knows one.
            packages = ["--variant=apt", f"--include={','.join(_PACKAGES.split())}"]
            _called("mmdebstrap", "--format=tar", *packages, SUITE, tar, *mirrors[:1])
            with linux.open("wb") as file:
                _called("bsdtar", "-xOf", tar, "./boot/vmlinuz-*", output=file)
            excluded = [f"--exclude=./{path}" for path in _LEFT_OUT.split()]
            _called("bsdtar", "--format=newc", *excluded, "-cf", cpio, f"@{tar}")
            cpio.rename(debian)
    return linux, debian


def _site(requirements: Path) -> Path:
    """Return a folder with the packages that a proxy imports, for Debian's Python; makes it if needed."""
    site = _CACHE / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16] / "site"
    if not site.exists():
        say(f"Fetching what {requirements} names ...")
        new = site.with_name("new")
        shutil.rmtree(new, ignore_errors=True)
        for_debian = ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", *for_debian]
        _called(*pip, f"--target={new}", "-r", requirements)
        new.rename(site)
    return site


def _called(*words: str | Path, output: IO[bytes] | None = None) -> None:
    """Run a program; what it says is said with what we say. Raises `Failed`."""
    ran = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, stdout=output or sys.stderr)
    if ran.returncode != 0:
        raise Failed(f"{Path(words[0]).name} ended with status {ran.returncode}")


def count(arguments: Sequence[str], of: Path, output: Path | None) -> int:
    """Count, print, write the results where that is asked for, and return the exit status."""
    results = run(arguments, of)
    about = results.about
    sys.stdout.write(
        f"{about['system']}, Linux {about['kernel']}; the loop: {about['loop']:.4f} of its instructions; "
        f"{about['warm_up']:g} s of warm-up, {about['seconds']:g} s measured\n\n"
        f"{tables(results, proxies.TITLES)}"
    )
    if output is not None:
        write(results, output)
    return int(any(row.errors for row in results.rows.values()))


def checkout(text: str) -> Path:
    """Read the name of a folder that has a proxy in it."""
    path = Path(text).resolve()
    if not (path / "src").is_dir() or not (path / "deploy/requirements.txt").is_file():
        raise argparse.ArgumentTypeError(f"no proxy in {text!r}: src or deploy/requirements.txt is missing")
    return path


def main() -> None:
    """Do what the command line says."""
    parser = command.Parser(
        prog="python -m benchmarks.emulated",
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"Further options are those of `python -m benchmarks`; without any: {_DEFAULTS}",
    )
    parser.add_argument(
        "--checkout", type=checkout, default=ROOT, help="whose `src` is measured, by this benchmark"
    )
    options, others = parser.parse_known_args()
    arguments = [*_DEFAULTS.split(), *others]
    output = parsed(arguments).output
    command.run(lambda: count(arguments, options.checkout, output))


if __name__ == "__main__":
    main()
