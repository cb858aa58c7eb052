"""log π₀ of the frozen reference, token by token, computed once a (prompt, completion) pair and
cached on disk for every epoch, every resume and every later run on the same base.

The reference is the base model, with the adapter that a run starts from if there is one: it never
changes, so a run on old and new feedback pays for the new feedback only. The file is a line of JSON
that names what the values belong to, then records: key (16 bytes), number of tokens (uint32), their
log-probabilities (float32 each), CRC-32. Records are only ever appended; of two with one key the
first counts.
"""

import errno
import fcntl
import hashlib
import json
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.artifacts.adapter_directory import fsync
from trainer.distributed.process_group import ProcessGroup
from trainer.forward.logprobs import Row, packs, score, shares_prefixes
from trainer.forward.parallel import concurrent_packs, parallel_map

_HEAD = struct.Struct("<16sI")
_CRC = struct.Struct("<I")
_FORMAT = 1

Progress = Callable[[int, int], None]


class ReferenceCache:
    """Values by pair in one file of `directory`; `fingerprint` names base model, type and device
    kind. Several processes may append at the same time."""

    def __init__(self, directory: Path, *, fingerprint: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"format": _FORMAT, "fingerprint": fingerprint}) + "\n"
        self._header = header.encode()
        name = hashlib.sha256(self._header).hexdigest()[:16]
        self.path = directory / f"{name}.logprobs"
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self._found: dict[bytes, tuple[int, int]] = {}  # offset of the values, their number
        self._kept: dict[bytes, Tensor] = {}  # in memory only
        self._end = 0
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if os.pread(self._file, len(self._header), 0) != self._header:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, self._header, 0)
            self._end = len(self._header)
            self._scan()
            os.ftruncate(self._file, self._end)  # what a crash cut off
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def __contains__(self, row: Row) -> bool:
        key = pair_key(row)
        return key in self._found or key in self._kept

    def __getitem__(self, row: Row) -> Tensor:
        """Return log π₀ of the row's completion tokens in nats, fp32. Raises KeyError if absent."""
        key = pair_key(row)
        if key not in self._found and key in self._kept:
            return self._kept[key]
        offset, count = self._found[key]
        packed = os.pread(self._file, 4 * count, offset)
        return torch.frombuffer(bytearray(packed), dtype=torch.float32)

    def add(self, values: Mapping[bytes, Tensor]) -> None:
        """Append the values whose key is not stored yet."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._scan()  # another process may have added some, or died while it did
            new = b""
            missing = {key: it for key, it in values.items() if key not in self._found}
            for key, tensor in _on_host(missing).items():
                body = tensor.numpy().tobytes()
                head = _HEAD.pack(key, len(body) // 4)
                self._found[key] = (self._end + len(new) + _HEAD.size, len(body) // 4)
                new += head + body + _CRC.pack(zlib.crc32(head + body))
            if new:
                os.ftruncate(self._file, self._end)
                written = os.pwrite(self._file, new, self._end)
                if written != len(new):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                self._end += len(new)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def add_of_all(self, values: Mapping[bytes, Tensor], process_group: ProcessGroup) -> None:
        """Add the values of all processes of the run; the first process writes them."""
        everyone = process_group.gather(_on_host(values))
        if process_group.first:
            self.add({key: value for part in everyone for key, value in part.items()})

    def share(self, rows: Sequence[Row], process_group: ProcessGroup) -> None:
        """Send what the first process has of these rows to processes whose host does not see its
        file, or not yet: they keep it in memory, as one process writes a file that hosts share."""
        if process_group.size == 1:
            return
        lacking = [index for index, row in enumerate(rows) if row not in self]
        wanted = sorted(set().union(*process_group.gather(lacking)))
        if not wanted:
            return
        first: dict[bytes, Tensor] = {}
        if process_group.first:
            first = {pair_key(rows[index]): self[rows[index]] for index in wanted}
        self._kept.update(process_group.gather(first)[0])

    def refresh(self) -> None:
        """Read what other processes have added."""
        self.add({})

    def close(self) -> None:
        os.close(self._file)

    def _scan(self) -> None:
        """Index whole records from the known end on; what follows a damaged one is not trusted."""
        size = os.fstat(self._file).st_size
        while self._end + _HEAD.size + _CRC.size <= size:
            head = os.pread(self._file, _HEAD.size, self._end)
            key, count = _HEAD.unpack(head)
            whole = _HEAD.size + 4 * count + _CRC.size
            if self._end + whole > size:
                return
            body = os.pread(self._file, 4 * count + _CRC.size, self._end + _HEAD.size)
            if zlib.crc32(head + body[:-4]) != _CRC.unpack(body[-4:])[0]:
                return
            self._found.setdefault(key, (self._end + _HEAD.size, count))
            self._end += whole


def complete(
    cache: ReferenceCache,
    model: Any,
    rows: Sequence[Row],
    *,
    token_budget: int,
    plan: Path,
    on_progress: Progress,
    process_group: ProcessGroup,
) -> None:
    """Compute the values of `rows` that are not cached; `model` must run with the adapter off.

    Rounding depends on which rows run together. Therefore the rows that were missing at first are
    written to `plan`; an interrupted run forms the same packs again, skips those that are cached
    and gets the values of an uninterrupted run.
    """
    missing = process_group.gather(_planned(plan, cache, rows) if process_group.first else None)[0]
    wanted = [rows[index] for index in missing]
    count = (
        1
        if process_group.size > 1
        else concurrent_packs(next(model.parameters()).device, token_budget)
    )
    groups = [
        [wanted[index] for index in pack]
        for pack in packs(wanted, token_budget // count, parts=count)
    ]
    lacking = [n for n, pack in enumerate(groups) if any(row not in cache for row in pack)]
    left = [
        groups[n] for n in process_group.gather(lacking)[0]
    ]  # others may know less than the first
    done = len(wanted) - sum(map(len, left))
    shares_prefixes(model)  # tried once, before several threads would

    def one(item: int) -> tuple[list[Row], list[Tensor]]:
        now = left[item : item + process_group.size]
        # Dummy pass for a process without a pack: FSDP collectives need all processes.
        pack = now[min(process_group.rank, len(now) - 1)]
        return pack, score(model, pack).logprobs.split()

    items = range(0, len(left), process_group.size)
    with torch.no_grad():
        for item, (pack, values) in zip(
            items, parallel_map(one, items, concurrency=count), strict=True
        ):
            cache.add_of_all(dict(zip(map(pair_key, pack), values, strict=True)), process_group)
            done += sum(map(len, left[item : item + process_group.size]))
            on_progress(done, len(wanted))
    process_group.gather(None)  # all is written
    cache.refresh()
    cache.share(rows, process_group)


def _planned(plan: Path, cache: ReferenceCache, rows: Sequence[Row]) -> list[int]:
    """Return the indices of the rows that were missing at the first call, one for each pair."""
    if plan.exists():
        found: list[int] = json.loads(plan.read_bytes())
        return found
    first = {pair_key(row): index for index, row in reversed(list(enumerate(rows)))}
    missing = sorted(index for index in first.values() if rows[index] not in cache)
    partial = plan.with_suffix(".partial")
    partial.write_text(json.dumps(missing), encoding="utf-8")
    fsync(partial)
    partial.rename(plan)
    return missing


def _on_host(values: Mapping[bytes, Tensor]) -> dict[bytes, Tensor]:
    """Return the values in fp32 on the CPU, brought there in one transfer. A tensor of a device
    must not be sent as an object: every receiver would open a context on that device."""
    if not values:
        return {}
    flat = torch.cat([tensor.detach().float() for tensor in values.values()]).cpu()
    parts = flat.split([len(tensor) for tensor in values.values()])
    # copies: a view is pickled with the whole of what it is a view of
    return {key: part.clone() for key, part in zip(values, parts, strict=True)}


def pair_key(row: Row) -> bytes:
    """Return the pair's key: a hash of both lists of token ids and of the prompt's length."""
    prompt, completion = row
    packed = array("q", [len(prompt), *prompt, *completion]).tobytes()
    return hashlib.sha256(packed).digest()[:16]
