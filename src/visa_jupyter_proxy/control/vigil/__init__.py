"""Live access: what was granted stays true, and nobody is thrown out for nothing.

A WebSocket outlives the grant and the token that it was opened with. While a user has live tunnels to an
instance, the VISA API is asked about them every `RECHECK_S`, by the call that moves no inactivity clock, with
the newest token that it has accepted of that user. What follows from its answers is a table (`table`); who is
watched, and when who is asked about, is plain code (`watches`); asking is `rounds`; what other nodes have
accepted comes through the journal (`elsewhere`). `vigil` ties them together, and minds the grace.

What the API told a worker for a request counts as an answer: those who work are hardly asked about.
"""

from visa_jupyter_proxy.control.vigil.vigil import Vigil

__all__ = ["Vigil"]
