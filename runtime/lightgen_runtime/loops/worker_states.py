"""The random states of a loader's workers, sent along with the batches they load.

A worker is a process of its own, which the main process cannot look into: what it sends
is a batch and, beside it, the states that its generators had behind that batch. Generators
that nothing has drawn from are not sent.
"""

from __future__ import annotations

import ctypes
import random
import struct
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import get_worker_info

from lightgen_runtime.utilities.seed import check_twister

# Of PyTorch, Python and NumPy; None where nothing was drawn since the worker began. Bytes,
# which pinning of memory leaves alone and any safe loader of checkpoints reads.
States = tuple["bytes | None", "bytes | None", "bytes | None"]

_UNCHANGED: States = (None, None, None)
_KEPT = 3  # a batch ahead, one that is under way, and the one before them
_NUMPY_WORDS = 625  # of a Mersenne twister: its 624 and its position


class WorkerStart:
    """Stands in for `worker_init_fn`: calls it, then sets the states to begin with."""

    def __init__(
        self, init: Callable[[int], None] | None, states: dict[int, States]
    ) -> None:
        self._init = init
        self._states = states

    def __call__(self, worker_id: int) -> None:
        """Run in the worker, before its first batch."""
        if self._init is not None:
            self._init(worker_id)
        _set(self._states.get(worker_id, _UNCHANGED))
        _Start.note()


class SendingCollate:
    """Stands in for `collate_fn`: returns (batch, number of the worker, *its states)."""

    def __init__(self, collate: Callable[[Any], Any], always: bool) -> None:
        self._collate = collate
        self._always = always

    def __call__(self, samples: Any) -> tuple[Any, ...]:
        """Run in the worker, once a batch."""
        batch = self._collate(samples)
        worker = get_worker_info()
        return batch, 0 if worker is None else worker.id, *_Start.drawn(self._always)


class WorkerStates:
    """What the main process knows of each worker's states."""

    def __init__(self, workers: int) -> None:
        self.received = 0  # batches of the running pass
        self._known: list[deque[tuple[int, States]]] = [
            deque(maxlen=_KEPT) for _ in range(workers)
        ]

    def receive(self, sent: Iterable[tuple[Any, ...]], first: int) -> Iterator[Any]:
        """Yield the batches of what workers send, which begins with number `first`."""
        known = self._known
        for number, (batch, worker, *states) in enumerate(sent, first):
            known[worker].append((number, (states[0], states[1], states[2])))
            self.received = number + 1
            yield batch

    def state(self, taken: int | None) -> list[list[tuple[int, States]]]:
        """Return what was known when `taken` batches of the pass were; None for all."""
        return [
            [entry for entry in known if taken is None or entry[0] < taken]
            for known in self._known
        ]

    def restore(
        self, state: list[list[tuple[int, States]]], first: int | None
    ) -> dict[int, States]:
        """Take knowledge back; return what each worker is to begin with.

        Args:
            state: From `state`.
            first: The batch that worker 0 loads first, its neighbours loading the ones
                behind it; None if a new pass begins.
        """
        starts: dict[int, States] = {}
        for worker, (known, entries) in enumerate(zip(self._known, state, strict=True)):
            known.extend(
                (number, (states[0], states[1], states[2]))
                for number, states in entries
                if first is None or number < first + worker
            )
            if known:
                starts[worker] = known[-1][1]
        if first is None:
            self.end_pass()
        return starts

    def end_pass(self) -> None:
        """Count batches anew; only what each worker ended with remains."""
        self.received = 0
        for known in self._known:
            if known:
                last = known[-1][1]
                known.clear()
                known.append((-1, last))


class _Start:
    """How the generators of this worker began."""

    torch: bytes = b""
    python: Any = None
    numpy: bytes | None = None
    packed: States = _UNCHANGED

    @classmethod
    def note(cls) -> None:
        cls.torch, cls.python, cls.numpy = _torch(), random.getstate(), _numpy_words()
        cls.packed = (cls.torch, _packed_python(cls.python), _packed_numpy())

    @classmethod
    def drawn(cls, always: bool) -> States:
        """Return the states that are others by now; all, if `always`."""
        unchanged = cls.packed if always else _UNCHANGED
        now, python = _torch(), random.getstate()
        return (
            unchanged[0] if now == cls.torch else now,
            unchanged[1] if python == cls.python else _packed_python(python),
            # Reading NumPy's state in full takes longer than all the rest.
            unchanged[2] if _numpy_words() == cls.numpy else _packed_numpy(),
        )


def _torch() -> bytes:
    state: bytes = torch.get_rng_state().numpy().tobytes()
    return state


def _packed_python(state: Any) -> bytes:
    version, words, gauss = state
    head = struct.pack("<i?d", version, gauss is not None, gauss or 0.0)
    return head + array("I", words).tobytes()


def _packed_numpy() -> bytes | None:
    if _numpy_words() is None:
        return None
    _, words, position, has_gauss, gauss = sys.modules["numpy"].random.get_state()
    head = struct.pack("<iid", position, has_gauss, gauss)
    packed: bytes = head + words.astype("uint32").tobytes()
    return packed


def _numpy_words() -> bytes | None:
    """Return NumPy's global state as it lies in memory, if it is the usual generator's."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    generator = numpy.random.get_bit_generator()
    if type(generator) is not numpy.random.MT19937:
        return None
    words: bytes = ctypes.string_at(generator.ctypes.state_address, 4 * _NUMPY_WORDS)
    return words


def _set(states: States) -> None:
    for_torch, for_python, for_numpy = states
    if for_torch is not None:
        torch.set_rng_state(torch.frombuffer(bytearray(for_torch), dtype=torch.uint8))
    if for_python is not None:
        head = struct.calcsize("<i?d")
        version, has_gauss, gauss = struct.unpack("<i?d", for_python[:head])
        python_words = tuple(array("I", for_python[head:]))
        random.setstate((version, python_words, gauss if has_gauss else None))
    if for_numpy is not None:
        import numpy

        head = struct.calcsize("<iid")
        words = numpy.frombuffer(for_numpy[head:], dtype=numpy.uint32)
        position, *gauss_state = struct.unpack("<iid", for_numpy[:head])
        check_twister(words, position)
        numpy.random.set_state(("MT19937", words, position, *gauss_state))
