"""The README's picture."""

from collections.abc import Mapping

from benchmarks.report import Results


def drawn(results: Results, titles: Mapping[str, str]) -> str:
    """Draw it."""
    raise NotImplementedError
