"""The benchmark's own arithmetic: what it makes of figures that it has measured."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import chart, counters, emulated, messages, proxies, report
from benchmarks.driver import Driver
from benchmarks.processes import Failed, child, free_port, program, wait
from benchmarks.report import CPU_TIME, INSTRUCTIONS, Results, Row
from benchmarks.scenarios import SCENARIOS
from benchmarks.world import PAGE, ROOT, World, python_environment


def _results(ours: float = 10.0, nginx: float = 5.0, **samples: float) -> Results:
    """Make results of one scenario; two rounds, the second twice as slow for all."""
    row = Row("small answer", "request")
    for factor in (1, 2):
        row.add("ours", {CPU_TIME: ours * factor, **samples})
        row.add("nginx", {CPU_TIME: nginx * factor, **samples})
    about: dict[str, Any] = {
        "versions": {"ours": "4", "nginx": "1.22", "chp": "5"},
        "date": "2026-01-01T00:00:00+00:00",
        "cpu": "a <fast> one",
        "kernel": "6.1",
        "system": "Debian GNU/Linux 13 (trixie), /usr/bin/python3.13",
        "python": "3.13.0",
    }
    return Results(about, {"small": row})


class TestRatios:
    """What is compared is one round with the same round."""

    def test_rounds_are_compared_each_by_itself(self) -> None:
        """A round in which the whole machine was slow changes no ratio."""
        assert 2.0 == _results().rows["small"].ratio("ours", CPU_TIME, "nginx")

    def test_an_error_is_no_number(self) -> None:
        """A proxy that failed in one round has neither value nor ratio, whatever the other rounds gave."""
        row = _results().rows["small"]
        row.errors["nginx"] = "connection lost"
        assert row.value("nginx", CPU_TIME) is None
        assert row.ratio("ours", CPU_TIME, "nginx") is None

    def test_what_was_not_counted_is_missing(self) -> None:
        """Without the kernel's share there is no number of instructions."""
        row = _results(user_instructions=7.0).rows["small"]
        assert row.value("ours", INSTRUCTIONS) is None
        row = _results(user_instructions=7.0, kernel_instructions=5.0).rows["small"]
        assert 12.0 == row.value("ours", INSTRUCTIONS)

    def test_instructions_are_looked_at_where_all_have_them(self) -> None:
        """A single sample without them makes CPU time the figure."""
        results = _results(user_instructions=7.0, kernel_instructions=5.0)
        assert INSTRUCTIONS == results.cost
        results.rows["small"].add("ours", {CPU_TIME: 1.0})
        assert CPU_TIME == results.cost


class TestCheck:
    """`make bench-check`."""

    @pytest.mark.parametrize(("now", "is_worse"), [(10.0, False), (10.9, False), (11.1, True), (2.0, False)])
    def test_more_than_a_tenth_is_too_much(self, now: float, is_worse: bool) -> None:
        """Instructions may grow by a tenth, as a multiple of nginx's; less is always allowed."""
        counted = {"user_instructions": 0.0}
        committed = _results()
        later = _results()
        for results, ours in ((committed, 10.0), (later, now)):
            row = results.rows["small"]
            row.samples = {}
            row.add("ours", counted | {"kernel_instructions": ours})
            row.add("nginx", counted | {"kernel_instructions": 5.0})
        assert is_worse == report.compared(later, committed, ["small"], INSTRUCTIONS).is_worse

    def test_the_machine_may_be_slower(self) -> None:
        """Both being three times as slow is no change."""
        verdict = report.compared(_results(30.0, 15.0), _results(), ["small"], CPU_TIME)
        assert not verdict.is_worse

    def test_another_machine_is_named(self) -> None:
        """Whose Python or nginx is another one has other ratios, and is told so."""
        elsewhere = _results()
        elsewhere.about |= {"python": "3.12.1", "versions": {"ours": "5", "nginx": "1.26"}}
        assert ["Python: 3.12.1, and 3.13.0 there", "nginx: 1.26, and 1.22 there"] == report.unlike(
            elsewhere, _results()
        )
        assert [] == report.unlike(_results(), _results())

    def test_what_has_no_cost_is_not_measured_first(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory at rest is in the committed results, and no cost that could be compared."""
        latest = tmp_path / "latest.json"
        latest.write_text(json.dumps(_results().as_json()))
        monkeypatch.setattr(bench, "LATEST", latest)
        monkeypatch.setattr(proxies, "missing", lambda _: None)
        assert 2 == bench.check(bench.parsed(["--check", "--only", "rest", "small"]))
        assert "latest.json has no cost of rest to compare with" in capsys.readouterr().err

    def test_what_cannot_be_compared_is_no_success(self) -> None:
        """An error now, or a row that is not in the committed results, fails the check."""
        failed = _results()
        failed.rows["small"].errors["ours"] = "connection lost"
        verdict = report.compared(failed, _results(), ["small"], CPU_TIME)
        assert verdict.is_worse
        assert "connection lost" in verdict.lines[0]
        assert report.compared(_results(), Results({}, {}), ["small"], CPU_TIME).is_worse


class TestReport:
    """What people read, and what is committed."""

    def test_results_survive_their_file(self) -> None:
        """Written and read again, they are the same."""
        results = _results()
        assert results == Results.from_json(results.as_json())

    def test_tables_have_values_and_multiples_of_ours(self) -> None:
        """Each peer's figure stands there with how many times ours it is; an error stands as one."""
        results = _results()
        results.rows["small"].errors["chp"] = "not started"
        text = report.tables(results, {"ours": "ours"})
        assert "small answer (request)" in text
        assert "7.5 (0.50)" in text
        assert "error" in text

    def test_a_figure_nobody_has_is_not_shown(self) -> None:
        """Without instructions there is no such line."""
        assert "instructions" not in report.tables(_results(), {})

    def test_the_chart_is_svg_with_a_dot_for_each_ratio(self) -> None:
        """It parses; twice as cheap is left of ours; what comes from the machine is escaped."""
        picture = ET.fromstring(chart.drawn(_results(), {}))  # noqa: S314 -- written here
        name = "{http://www.w3.org/2000/svg}"
        dots = {
            title.text: float(dot.attrib["cx"])
            for dot in picture.iter(f"{name}circle")
            for title in dot.iter(f"{name}title")
        }
        assert ["ours: 1.00", "nginx: 0.50"] == list(dots)
        assert dots["nginx: 0.50"] < dots["ours: 1.00"]
        assert any("<fast>" in (text.text or "") for text in picture.iter(f"{name}text"))

    def test_the_chart_names_who_failed(self) -> None:
        """A row in which ours failed stays, without a dot, and says so."""
        results = _results()
        results.rows["small"].errors["ours"] = "connection lost"
        picture = chart.drawn(results, {})
        assert "small answer" in picture
        assert "error: ours" in picture
        assert "<title>" not in picture


class TestEmulated:
    """What the emulated machine says."""

    def test_a_nanosecond_is_an_instruction(self) -> None:
        """CPU time becomes instructions, and stays no time; nor is there any latency of such a machine."""
        said = f"100080000\r\n{json.dumps(_results(p50_us=7.0).as_json())}".replace("\n", "\r\n")
        samples = emulated.counted(said).rows["small"].samples
        assert [{INSTRUCTIONS: 10e3}, {INSTRUCTIONS: 20e3}] == samples["ours"]

    @pytest.mark.parametrize("took", [101_100_000, 98_900_000, 0])
    def test_a_loop_of_known_length_says_whether_it_is(self, took: int) -> None:
        """More than a hundredth off, nothing of that machine is believed."""
        with pytest.raises(Failed, match="was counted as"):
            emulated.counted(f"{took}\n{json.dumps(_results().as_json())}")

    @pytest.mark.parametrize("said", ["", "100000000\n", '100000000\n{"about"', "Traceback\n{}"])
    def test_a_machine_that_ended_early_has_no_results(self, said: str) -> None:
        """Whether it never came so far, or was cut off: it is said, and nothing is shown."""
        with pytest.raises(Failed, match="without results"):
            emulated.counted(said)

    def test_the_loop_leaves_nothing_behind(self) -> None:
        """It ends, its memory can be given back, and it takes CPU time."""
        assert emulated.loop() > 0


def _refused(command: list[str]) -> str:
    """Run a command that has to be refused, and return the one line that says why."""
    ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.returncode == 2
    assert not ran.stdout
    (line,) = ran.stderr.splitlines()
    return line


class TestArguments:
    """What cannot be done is refused at the start, in one line."""

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ("benchmarks --rounds 0", "argument --rounds: '0' is no whole number from 1 on"),
            ("benchmarks --rounds 1.5", "argument --rounds: '1.5' is no whole number from 1 on"),
            ("benchmarks --seconds 0", "argument --seconds: '0' is no positive number of seconds"),
            ("benchmarks --seconds -1", "argument --seconds: '-1' is no positive number of seconds"),
            ("benchmarks --seconds two", "argument --seconds: 'two' is no positive number of seconds"),
            ("benchmarks --warm-up nan", "argument --warm-up: 'nan' is no positive number of seconds"),
            ("benchmarks --warm-up inf", "argument --warm-up: 'inf' is no positive number of seconds"),
            (
                "benchmarks --output /nonexistent/x",
                "cannot write '/nonexistent/x': No such file or directory",
            ),
            ("benchmarks --output /", "cannot write '/': Is a directory"),
            ("benchmarks.crowd --sessions 0", "argument --sessions: '0' is no whole number from 1 on"),
            ("benchmarks.crowd --workers 0", "argument --workers: '0' is no whole number from 1 on"),
            ("benchmarks.callgrind ws --units 0", "argument --units: '0' is no whole number from 1 on"),
            ("benchmarks.control --channels 0", "argument --channels: '0' is no whole number from 1 on"),
            ("benchmarks.emulated --seconds 0", "argument --seconds: '0' is no positive number of seconds"),
            ("benchmarks.emulated --checkout /nonexistent", "no proxy in '/nonexistent'"),
        ],
    )
    def test_what_makes_no_measurement_is_refused(self, arguments: str, why: str) -> None:
        """Less than one, no time, a file that cannot be written: nothing is started, nothing overwritten."""
        module, *others = arguments.split()
        assert why in _refused([sys.executable, "-m", module, *others])

    @pytest.mark.parametrize("name", ["latest.json", "latest.svg"])
    def test_committed_results_are_no_output(self, name: str) -> None:
        """What a whole run alone replaces cannot be named as the file of any."""
        path = bench.LATEST.with_name(name)
        before = path.read_bytes()
        line = _refused(
            [sys.executable, "-m", "benchmarks", "--output", f"benchmarks/results/../results/{name}"]
        )
        assert f"a whole run replaces {name}" in line
        assert before == path.read_bytes()

    def test_looking_whether_a_file_can_be_written_changes_nothing(self, tmp_path: Path) -> None:
        """What is there stays until there is something better, and what is not there is not made."""
        there, new = tmp_path / "there", tmp_path / "new"
        there.write_text("results")
        for path in (there, new):
            assert path == bench.parsed(["--output", str(path)]).output
        # As in an emulated machine, which has no such folder as its host.
        assert new == bench.parsed(["--output", "/nonexistent/x", "--output", str(new)]).output
        assert there.read_text() == "results"
        assert [there] == list(tmp_path.iterdir())

    @pytest.mark.parametrize("target", ["bench", "bench-emulated"])
    def test_make_takes_a_file_whose_name_has_spaces(self, target: str, tmp_path: Path) -> None:
        """It is one name, for the shell as for make, whatever is in it."""
        name = tmp_path / "no such $folder" / "a b.json"
        parts = ["-o", ".venv/dev.stamp", "-o", "peers", "-o", "chp", f"BIN={Path(sys.executable).parent}"]
        shown = str(name).replace("$", "$$")
        ran = subprocess.run(
            ["make", *parts, target, f"OUTPUT={shown}"], cwd=ROOT, check=False, capture_output=True, text=True
        )
        assert ran.returncode == 2
        assert f"cannot write '{name}'" in ran.stderr

    @pytest.mark.parametrize(
        "module", ["benchmarks", "benchmarks.crowd", "benchmarks.callgrind", "benchmarks.control"]
    )
    def test_every_option_says_what_it_is(self, module: str) -> None:
        """In the list of `--help`, each has words behind its name."""
        command = [sys.executable, "-m", module, "--help"]
        environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
        text = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment
        ).stdout
        options = text.partition("options:")[2]
        found = [
            line.split("  ")
            for line in options.replace("\n" + " " * 22, " " * 22).splitlines()
            if "--" in line
        ]
        assert found
        for parts in found:
            assert len([part for part in parts if part.strip()]) == 2, parts


def _whole(rounds: int = 3, seconds: float = 2.0) -> Results:
    """Make the results of a run of everything."""
    results = _results()
    results.about |= {"versions": dict.fromkeys(proxies.PROXIES, "1"), "rounds": rounds, "seconds": seconds}
    results.rows = {scenario.name: results.rows["small"] for scenario in SCENARIOS}
    return results


class TestWritten:
    """Only a whole run takes the place of the committed results."""

    @pytest.fixture(autouse=True)
    def committed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Have other files in the place of the committed ones."""
        path = tmp_path / "latest.json"
        for name, file in (("LATEST", path), ("CHART", path.with_suffix(".svg"))):
            file.write_text("committed")
            monkeypatch.setattr(bench, name, file)
        return path

    def _bench(self, monkeypatch: pytest.MonkeyPatch, results: Results, *arguments: str) -> int:
        def run(*_: object) -> Results:
            return results

        monkeypatch.setattr(bench, "run", run)
        return bench.bench(bench.parsed(arguments))

    def test_a_whole_run_replaces_them(self, committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All scenarios and proxies, long and often enough: results and chart are its own."""
        results = _whole()
        assert self._bench(monkeypatch, results) == 0
        assert results.as_json() == json.loads(committed.read_text())
        assert "<svg" in committed.with_suffix(".svg").read_text()

    @pytest.mark.parametrize(
        ("spoilt", "why"),
        [
            (lambda results: results.rows.pop("cold"), "without cold"),
            (lambda results: results.about["versions"].pop("haproxy"), "without haproxy"),
            (lambda results: results.rows["idle"].errors.update(chp="lost"), "with errors in small, "),
            (lambda results: results.about.update(rounds=2), "of 2 rounds, not 3"),
            (lambda results: results.about.update(seconds=1.9), "of 1.9 s, not 2"),
        ],
    )
    def test_less_than_a_whole_run_does_not(
        self,
        spoilt: Any,
        why: str,
        committed: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Whatever it lacks is said, and both files stay as they are."""
        results = _whole()
        spoilt(results)
        status = self._bench(monkeypatch, results)
        assert status == int("errors" in why)
        assert why in capsys.readouterr().err
        assert {"committed"} == {committed.with_suffix(end).read_text() for end in (".json", ".svg")}

    def test_what_was_asked_for_is_written(
        self, committed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With a file named, results of any run are in there, and it is said."""
        results, output = _whole(rounds=1), committed.with_name("a b.json")
        self._bench(monkeypatch, results, "--output", str(output))
        assert results.as_json() == json.loads(output.read_text())
        assert f"written: {output}\n" in capsys.readouterr().err
        assert committed.read_text() == "committed"


@pytest.mark.skipif(program("nginx") is None, reason="nginx plays the instance (Debian's nginx-light)")
class TestEnding:
    """What ends a benchmark ends all that it has started, and leaves nothing behind."""

    @pytest.mark.parametrize(
        ("command", "number", "begun"),
        [
            ("benchmarks --only rest --proxies ours", signal.SIGINT, "ours.log"),
            ("benchmarks --only rest --proxies ours", signal.SIGTERM, "ours.log"),
            ("benchmarks --only rest --proxies ours", signal.SIGHUP, "ours.log"),
            ("benchmarks.crowd --sessions 500", signal.SIGTERM, "load.log"),
        ],
    )
    def test_signals_leave_nothing(
        self, command: str, number: signal.Signals, begun: str, tmp_path: Path
    ) -> None:
        """One line says that it ends; no folder stays, and no process that works in one."""
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:

            def listening() -> bool:
                logs = [log.read_text() for log in tmp_path.glob("*/ours.log")]
                return any('"listening"' in log for log in logs) and any(tmp_path.glob(f"*/{begun}"))

            try:
                wait(listening, "the proxy and its client", 100.0)
                running.send_signal(number)
                _, said = running.communicate()
            finally:
                running.kill()
        assert ["ending what was started ..."] == [
            line for line in said.splitlines() if "round 1" not in line
        ]
        assert 128 + number == running.returncode
        assert [] == list(tmp_path.iterdir())
        assert [] == [
            path.parent
            for path in Path("/proc").glob("[0-9]*/cwd")
            if _target(path).startswith(str(tmp_path))
        ]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # it has ended, or is somebody else's


class TestCounters:
    """What the kernel and perf say."""

    def test_perf_lines_are_read(self) -> None:
        """What perf could not count is missing, not 0."""
        output = (
            "# started on Mon\n\n"
            "123456,,instructions:u,33754524,100.00,,\n"
            "33.75,msec,task-clock:u,33754524,100.00,0.107,CPUs utilized\n"
            "<not supported>,,instructions:k,0,100.00,,\n"
        )
        assert {"instructions:u": 123456.0, "task-clock:u": 33.75} == counters.counts(output)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Run the echoing instance, and have clients connect to it without a proxy between."""
    port, api_port = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.instance", "127.0.0.1", str(port), str(api_port), str(PAGE)]
    with child("echo", command, tmp_path, environment=python_environment()) as running:
        running.wait_until_listening(port)
        yield World(tmp_path, ("127.0.0.1", str(port)), api_port, None, None)


class TestClient:
    """Only what came back complete and correct counts."""

    @pytest.mark.parametrize("work", ["ws", "ws64k", "kernel", "open", "page"])
    def test_work_is_counted(self, world: World, work: str) -> None:
        """As many units as were ordered are done, on three connections; then as many as fit in the time."""
        with Driver.running(world, work, int(world.hosts[1]), 3) as load:
            for order in ("count 30", "ramp 30"):
                result = load.order(order)
                assert 30 == result.done
                assert 0 < result.latency_us["p50"] <= result.latency_us["p99"]
            assert load.order("seconds 0.2").done > 0

    def test_a_wrong_answer_is_an_error(self, world: World) -> None:
        """A 404 where a 200 is due ends the work, and says so."""
        with (
            pytest.raises(Failed, match="404 Not Found"),
            Driver.running(world, "small", int(world.hosts[1]), 3),
        ):
            pass

    def test_nothing_is_left_behind(self, world: World) -> None:
        """A client that was not told to end has ended when its block is left."""
        with Driver.running(world, "ws", int(world.hosts[1]), 3) as load:
            assert [load.child.pid] == load.child.pids()
        assert [] == load.child.pids()


class TestMessages:
    """What clients send."""

    def test_a_token_has_the_size_of_a_real_one(self) -> None:
        """Every serial number gives another token of 1 200 bytes, in three parts."""
        tokens = {messages.token(serial) for serial in range(3)}
        assert 3 == len(tokens)
        assert {(1200, 2)} == {(len(token), token.count(".")) for token in tokens}

    @pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)])
    def test_frames_have_the_shortest_head(self, size: int, head: int) -> None:
        """RFC 6455 5.2: the length takes as few bytes as it can; a client's has a mask of four more."""
        assert head + size == len(messages.frame(bytes(size), masked=False))
        assert head + 4 + size == len(messages.frame(bytes(size), masked=True))
