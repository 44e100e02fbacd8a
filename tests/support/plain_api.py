"""The VISA API's open and close in memory, without sockets: for tests of orders and of simulated time."""

from visa_jupyter_proxy.errors import InstanceNotFound, TokenRejected, VisaUnreachable
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi


class PlainApi(VisaApi):
    """It can be down, lose its answer, refuse tokens, and know no such instance."""

    def __init__(self) -> None:
        self.active: set[NotebookKey] = set()
        self.told: list[tuple[str, NotebookKey]] = []
        """What it has obeyed, in order."""
        self.asked = 0
        self.mood = "up"
        """`up`, `down`, or `answer lost`: it obeys, and nobody hears of it."""
        self.expired: set[str] = set()
        """Tokens that it refuses."""
        self.gone: set[int] = set()
        """Instances that it knows nothing of."""

    async def open_notebook(self, token: str, instance_id: int, kernel_id: str, session_id: str) -> None:
        """See `VisaApi`."""
        self._meet()
        if token in self.expired:
            raise TokenRejected("401")
        if instance_id in self.gone:
            raise InstanceNotFound("404")
        notebook = NotebookKey(instance_id, kernel_id, session_id)
        self.active.add(notebook)
        self._told("open", notebook)

    async def close_notebook(self, instance_id: int, kernel_id: str, session_id: str) -> None:
        """See `VisaApi`."""
        self._meet()
        notebook = NotebookKey(instance_id, kernel_id, session_id)
        self.active.discard(notebook)
        self._told("close", notebook)

    def _meet(self) -> None:
        self.asked += 1
        if self.mood == "down":
            raise VisaUnreachable("down")

    def _told(self, what: str, notebook: NotebookKey) -> None:
        self.told.append((what, notebook))
        if self.mood != "up":
            raise VisaUnreachable(self.mood)
