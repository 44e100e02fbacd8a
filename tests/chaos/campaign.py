"""Runs a plan against real nodes, and says what became of it.

    outcome = await run(plan, seed="...", directory=..., settings=storage.settings, rows=storage.rows)

Then all is brought back: the nodes, VISA, everybody's newest token. When nothing is under way any more, what
everybody says is compared (`verdict`); then those come back whose opening could not be delivered, and it is
compared again, without exemption.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chaos.nodes import Killed, Node
from chaos.people import Notebook, User, ask
from chaos.plan import NODES, NOTEBOOKS, USERS, Step, digest
from chaos.verdict import Book, Verdict, judge
from support.client import Message
from support.instance import switching
from support.visa_api import Answer, Endpoint, Hold, VisaApiServer

SETTINGS: Final = {
    "WORKERS": "2",
    "OWNER_TIMEOUT_S": "3",
    "SESSION_LINGER_S": "1",
    "API_TIMEOUT_S": "3",
    "DRAIN_S": "3",
    "ACCESS_LOG": "errors",
}
"""The least that keeps the order of the real ones."""

_HOST: Final = "127.83.0.1"

_QUIET_S: Final = 240.0
"""For everything to come back: more than three of the longest pauses between attempts to report."""

_POLL_S: Final = 0.25

type Rows = Callable[[str], list[tuple[Any, ...]]]


@dataclass
class Outcome:
    """What has been done, and what was found."""

    seed: str
    plan: str
    """The plan's digest."""
    problems: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = ", ".join(f"{name}: {value}" for name, value in self.figures.items())
        found = "".join(f"\n  {problem}" for problem in self.problems)
        return f"seed {self.seed} (plan {self.plan}): {len(self.problems)} problems; {shown}{found}"


class Campaign:
    """Everything that takes part."""

    def __init__(self, seed: str, api: VisaApiServer, nodes: Sequence[Node]) -> None:
        self.api = api
        self.nodes = nodes
        self.users = [User(number) for number in range(USERS)]
        self.notebooks = [
            Notebook(seed, number, self.users[number % USERS], self._port, len(nodes))
            for number in range(NOTEBOOKS)
        ]
        self.asked: Counter[int | None] = Counter()
        self._chance = random.Random(f"{seed} troubles")
        self._hold = Hold()
        self._work: set[asyncio.Task[None]] = set()
        for user in self.users:
            api.user(user.token, user.name)
            api.instance(user.instance, owner=user.name, ip=_HOST)

    # --- the deeds ------------------------------------------------------------------------------

    async def carry_out(self, plan: Sequence[Step]) -> None:
        """Do it all. A kill that has to wait for its victim delays what follows."""
        began = time.monotonic()
        for step in plan:
            await asyncio.sleep(max(0.0, began + step.at - time.monotonic()))
            before = time.monotonic()
            await self._do(step)
            began += time.monotonic() - before

    async def _do(self, step: Step) -> None:
        node = self.nodes[step.node]
        match step.deed:
            case "ask":
                self._begin(self._ask(self.users[step.number], node))
            case "renew":
                self._renew(self.users[step.number])
            case "trouble":
                self.trouble(step.how)
            case "kill":
                await node.kill(step.how)
            case "start":
                self._begin(node.start())
            case _:
                _work(self.notebooks[step.number], step)

    async def _ask(self, user: User, node: Node) -> None:
        if node.port is not None:
            self.asked[await ask(user, node.port)] += 1

    def _renew(self, user: User) -> None:
        """Replace the access token; the old one has expired."""
        old = user.token
        user.tokens += 1
        self.api.user(user.token, user.name)
        self.api.users.pop(old)

    def trouble(self, how: str) -> None:
        """Have VISA misbehave so, and no longer as before."""
        self._hold.release()
        self._hold = Hold()
        for endpoint in ("instance", "open", "close"):
            self.api.always(endpoint, None)
        if how in ("down", "all down"):
            self.api.down() if how == "down" else self._refuse_all()
            return
        self.api.up()
        if how == "mixed":
            kinds = ("fails", "hangs", "forgets", "obeys", "babbles")
            for endpoint in _REPORTS:
                answers = [self._answer(self._chance.choice(kinds), endpoint) for _ in range(10)]
                self.api.script(endpoint, *answers)
        elif how != "none":
            for endpoint in _REPORTS:
                self.api.always(endpoint, self._answer(how, endpoint))

    def _refuse_all(self) -> None:
        self.api.up()
        for endpoint in ("instance", *_REPORTS):
            self.api.always(endpoint, Answer(status=503))

    def _answer(self, how: str, endpoint: Endpoint) -> Answer:
        match how:
            case "fails":
                return Answer(status=500)
            case "refuses":
                return Answer(status=401) if endpoint == "open" else Answer()
            case "hangs":
                return Answer(hold=self._hold, reset=True)
            case "forgets":
                return Answer(reset=True)
            case "obeys":
                return Answer(reset=True, obey=True)
            case _:
                return Answer(raw=b"SSH-2.0-what\r\n")

    # --- afterwards -----------------------------------------------------------------------------

    async def calm_down(self) -> None:
        """Bring everything back."""
        self.trouble("none")
        self.api.unscript()
        await asyncio.gather(*self._work)
        for node in self.nodes:
            if node.port is None:
                await node.start()

    async def be_quiet(self, rows: Rows) -> str | None:
        """Wait until nothing is under way; everybody asks for something now and then. Else say what is."""
        deadline = time.monotonic() + _QUIET_S
        while (left := await self._under_way(rows)) and time.monotonic() < deadline:
            for user in self.users:
                for node in self.nodes:
                    await self._ask(user, node)
            await asyncio.sleep(_POLL_S)
        return left

    async def _under_way(self, rows: Rows) -> str | None:
        """Say what is under way."""
        lost = [notebook.key for notebook in self.notebooks if notebook.is_open != notebook.is_connected]
        if lost:
            return f"on their way: {lost}"
        book = await asyncio.to_thread(Book.read, rows)
        stands = sum(notebook.channels for notebook in self.notebooks)
        if book.pending() or book.carrying() != stands:
            return f"{book.pending()} reports pending; {book.carrying()} connections carry, {stands} stand"
        for node in self.nodes:
            state = await node.control_state()
            waits = {name: state[name] for name in ("records_waiting", "reports_pending") if state[name]}
            if waits or state["journal"] != "written":
                return f"node {node.number}: {waits}, journal {state['journal']}"
        return None

    async def verdict(self, rows: Rows) -> Verdict:
        """Compare what everybody says."""
        silent = [one.key for one in self.notebooks if one.is_connected and not await one.echoes()]
        killed: list[Killed] = [killed for node in self.nodes for killed in node.killed]
        found = judge(self.notebooks, self.api.active(), await asyncio.to_thread(Book.read, rows), killed)
        found.problems += [f"{key}: the WebSocket that stands does not answer" for key in silent]
        return found

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)

    def _port(self, node: int) -> int | None:
        return self.nodes[node].port


def _work(notebook: Notebook, step: Step) -> None:
    """Do what somebody does at a notebook."""
    match step.deed:
        case "open":
            notebook.open(step.node)
        case "close":
            notebook.close(step.how)
        case "lose":
            notebook.lose(step.node, step.how)
        case "overtake":
            notebook.overtake(step.node)
        case "speak":
            notebook.speak()


_REPORTS: Final[tuple[Endpoint, ...]] = ("open", "close")


async def run(
    plan: Sequence[Step], *, seed: str, directory: Path, settings: Mapping[str, str], rows: Rows
) -> Outcome:
    """Carry a plan out with nodes in `directory` whose journal is where `settings` says."""
    outcome = Outcome(seed, digest([*plan]))
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(VisaApiServer())
        server = await asyncio.start_server(_serve, _HOST, 0, backlog=1024)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        nodes = _nodes(directory, api.url, settings, server.sockets[0].getsockname()[1])
        for node in nodes:
            stack.callback(node.end)
        campaign = Campaign(seed, api, nodes)
        await asyncio.gather(*(node.start() for node in nodes))
        lives = [asyncio.create_task(notebook.run()) for notebook in campaign.notebooks]
        stack.push_async_callback(_end, lives)
        await campaign.carry_out(plan)
        outcome.figures["seconds of chaos"] = round(time.monotonic() - began)
        await _conclude(campaign, rows, outcome)
        for node in nodes:
            outcome.problems += [f"node {node.number}: {line}" for line in node.complaints()]
    outcome.figures["seconds"] = round(time.monotonic() - began)
    return outcome


async def _conclude(campaign: Campaign, rows: Rows, outcome: Outcome) -> None:
    await campaign.calm_down()
    left = await campaign.be_quiet(rows)
    if left is not None:
        outcome.problems.append(f"not quiet after {_QUIET_S:.0f} s: {left}")
    first = await campaign.verdict(rows)
    for notebook in campaign.notebooks:
        if notebook.key in first.untold:
            notebook.lose(0, "FIN")
    left = await campaign.be_quiet(rows) if first.untold and left is None else left
    last = await campaign.verdict(rows)
    outcome.problems += first.problems or last.problems
    outcome.problems += [f"{key} is still not told, though its user came back" for key in last.untold]
    outcome.figures |= _figures(campaign, first)


def _figures(campaign: Campaign, verdict: Verdict) -> dict[str, object]:
    refusals = sum((notebook.refusals for notebook in campaign.notebooks), Counter[str]())
    return {
        "kills": sum(node.kills for node in campaign.nodes),
        "of control processes": sum(len(node.killed) for node in campaign.nodes),
        "101s": sum(len(notebook.seen) for notebook in campaign.notebooks),
        "connected at last": sum(notebook.is_connected for notebook in campaign.notebooks),
        "refused": dict(refusals),
        "asked": dict(campaign.asked),
        "reports": dict(Counter(str(asked.endpoint) for asked in campaign.api.requests)),
        "not delivered at first": len(verdict.untold),
        "known only to who was killed": verdict.unwritten,
    }


def _nodes(directory: Path, api_url: str, settings: Mapping[str, str], port: int) -> list[Node]:
    routes = [
        {"match": r"^/jupyter/(\d+).*", "type": "jupyter", "name": "Jupyter", "remotePort": port, "ws": True}
    ]
    nodes = []
    for number in range(NODES):
        place = directory / f"node{number}"
        place.mkdir()
        (place / "proxy.conf.json").write_text(json.dumps(routes))
        nodes.append(Node(number, place, api_url, SETTINGS | {**settings}))
    return nodes


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be an instance: answer plain requests, echo what comes through a WebSocket."""
    try:
        while (head := await reader.readuntil(b"\r\n\r\n")) and b"\r\nupgrade:" not in head.lower():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        names = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
        writer.write(switching(Message(b"", [(name, value.strip()) for name, _, value in names])))
        while data := await reader.read(65536):
            writer.write(data)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the proxy has been killed
    finally:
        writer.close()
