"""Changes to a message: of bytes, of lines, of numbers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

_NUMBER: Final = re.compile(rb"[0-9]+")
_LARGEST: Final = 2**18
"""Bytes of a mutated message: well past every limit, and still fast."""


@dataclass(frozen=True)
class Stock:
    """What there is to make messages from."""

    seeds: Sequence[bytes]
    words: Sequence[bytes]
    """What is put in, besides single bytes."""

    def message(self, random: Random) -> bytes:
        """Change a seed in a few places; some stay as they are."""
        data = bytearray(random.choice(self.seeds))
        for _ in range(min(int(random.expovariate(0.6)), 12)):
            random.choice(_CHANGES)(random, data, self)
        return bytes(data[:_LARGEST])


type _Change = Callable[[Random, bytearray, Stock], None]


def cut(random: Random, data: bytes) -> list[bytes]:
    """Cut a message into the segments in which it is sent."""
    match random.randrange(4):
        case 0:
            places = random.sample(range(len(data) + 1), min(len(data), random.randrange(1, 6)))
        case 1 if len(data) < 300:
            places = list(range(len(data)))
        case _:
            places = []
    bounds = [0, *sorted(places), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds) if begin < end]


def _place(random: Random, data: bytearray) -> int:
    return random.randint(0, len(data))


def _range(random: Random, data: bytearray) -> slice:
    begin = _place(random, data)
    return slice(begin, begin + random.choice((1, 1, 2, 4, 16, 64)))


def _replace_byte(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- all look alike
    data[_range(random, data)] = bytes([random.randrange(256)])


def _flip_bit(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _put_word(random: Random, data: bytearray, stock: Stock) -> None:
    place = _place(random, data)
    data[place:place] = random.choice(stock.words)


def _put_line(random: Random, data: bytearray, stock: Stock) -> None:
    """At the beginning of a line, where it is most likely to mean something."""
    lines = random.choice(stock.seeds).splitlines(keepends=True)
    place = data.find(b"\n", _place(random, data)) + 1
    data[place:place] = random.choice([*lines, *stock.words])


def _take_out(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    del data[_range(random, data)]


def _take_line_out(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    lines = bytes(data).splitlines(keepends=True)
    if lines:
        del lines[random.randrange(len(lines))]
        data[:] = b"".join(lines)


def _swap_lines(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    lines = bytes(data).splitlines(keepends=True)
    if len(lines) > 1:
        one, other = random.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
        data[:] = b"".join(lines)


def _repeat(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    part = _range(random, data)
    times = random.choice((1, 1, 2, 10, 100, 10_000))
    data[part] = bytes(data[part]) * (times + 1)
    del data[_LARGEST:]


def _change_number(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    numbers = list(_NUMBER.finditer(data))
    if numbers:
        number = random.choice(numbers)
        value = int(number[0][:20])
        changed = random.choice((value - 1, value + 1, value * 2, 0, 2**31, 2**63, 2**64, 10**30))
        data[slice(*number.span())] = str(changed).encode()


def _change_case(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    part = _range(random, data)
    data[part] = bytes(data[part]).swapcase()


def _cut_off(random: Random, data: bytearray, stock: Stock) -> None:  # noqa: ARG001 -- likewise
    del data[_place(random, data) :]


def _splice(random: Random, data: bytearray, stock: Stock) -> None:
    other = random.choice(stock.seeds)
    data[_place(random, data) :] = other[random.randint(0, len(other)) :]


_CHANGES: Final[list[_Change]] = [
    *(_replace_byte, _flip_bit, _put_word, _put_word, _put_line, _put_line, _take_out, _take_line_out),
    *(_swap_lines, _repeat, _change_number, _change_number, _change_case, _cut_off, _splice),
]
