"""What can go wrong, what is seen then, and what is lost: docs/reliability.md, and the rows of test_faults.py.

`python tests/fault_table.py` writes the page anew.
"""

import dataclasses
import pathlib
import re

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "reliability.md"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row.

    Attributes:
      done: What is done.
      seen: The first sentence of what is raised or warned of, with its type; or what happens instead.
      lost: What is gone afterwards.
      thorough: Whether CI leaves it out, since others show the same in less detail.
    """

    done: str
    seen: str
    lost: str = "nothing"
    thorough: bool = False


def seen_of(fault):
    """What may be seen: where a worker dies while it sends, Grain waits for it, until we do no longer."""
    return {fault.seen, re.sub(f"{re.escape(_EXIT.format(''))}(.*)", lambda code: _ENDED.format(code[1]), fault.seen)}


def first_sentence(error):
    """Of an exception or a warning, with its type."""
    text = re.split(r"\.\s|\.$|:?\n", str(error))[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_STOPS = (
    "RuntimeError: `source` and its operations must not raise StopIteration, which would end the data: got"
    " StopIteration()"
)
_ALONE = "RuntimeError: `source` and `operators` must raise Exceptions alone where batches are made ahead: got {}"
_STRUCTURE = "ValueError: Expected all input elements to have the same structure but got"
_OUTSIDE = (
    "UserWarning: `value_range` must hold the values of all images: got {{'GaussianNoise': {}}} values outside so far,"
    " which were clipped to it"
)
_MAPPING = (
    "TypeError: `element` must be a mapping from field names, a tuple, a list, a NamedTuple or a dataclass: got {}"
)
_EXIT = "RuntimeError: Worker process was terminated unexpectedly with exit code {}"
_ENDED = "WorkerEnded: `source` must keep its worker processes: got one that ended without a word, with exit code {}"
_CLIPPED = "that record's pixels: what `Batch` stacks gets one dtype, and is clipped to the range"

# A record of the third batch, by what becomes of it in fault_sources.py.
RECORDS = {
    "raises": Fault("reading it raises an exception", "ValueError: record 19 is broken"),
    "raises StopIteration": Fault("reading it, or an operation on it, raises StopIteration", _STOPS),
    "raises SystemExit": Fault("reading it raises SystemExit", _ALONE.format("SystemExit()")),
    "raises KeyboardInterrupt": Fault("reading it raises KeyboardInterrupt", _ALONE.format("KeyboardInterrupt()")),
    "none": Fault("it is None", _MAPPING.format("NoneType")),
    "text": Fault("it has no fields", _MAPPING.format("str")),
    "without an image": Fault("it lacks a field", _STRUCTURE),
    "path for an image": Fault("a field has another type", _STRUCTURE),
    "another shape": Fault("an image has another shape", _STRUCTURE),
    "another dtype": Fault("an image is uint8 among float32", _OUTSIDE.format(576), _CLIPPED),
    "no number": Fault("an image is NaN", _OUTSIDE.format(576), "that record's pixels"),
    "empty batch": Fault("its batch comes without records", "a batch of 0 records", "the records that were left out"),
    "fields of other lengths": Fault(
        "its batch has fields of other lengths",
        "ValueError: `data` must share the batch as axis 0: got lengths {\"['image']\": (8,), \"['label']\": (3,),"
        " \"['record_seed']\": (8,)}",
    ),
}

# The same in a worker process.
WORKERS = {
    "raises": Fault("reading raises an exception", "ValueError: record 19 is broken", thorough=True),
    "raises what can't be pickled": Fault(
        "reading raises an exception that pickle refuses, such as one that holds a lambda",
        "RuntimeError: fault_sources.Holding: record 19 is broken",
    ),
    "raises what can't be made again": Fault(
        "reading raises an exception whose class takes other arguments",
        "RuntimeError: fault_sources.TwoParts: record 19 and its neighbour",
        thorough=True,
    ),
    "raises StopIteration": Fault("reading raises StopIteration", _STOPS, thorough=True),
    "raises SystemExit": Fault("reading raises SystemExit", _ENDED.format(0), thorough=True),
    "raises KeyboardInterrupt": Fault("it gets Ctrl-C", _EXIT.format(1), thorough=True),
    "raises CancelledError": Fault("reading raises what is no Exception", _EXIT.format(1), thorough=True),
    "is killed": Fault("it is killed with SIGKILL, as for want of memory", _EXIT.format(-9)),
    "exits": Fault("it calls `os._exit(3)`", _EXIT.format(3), thorough=True),
    "exits as if all were well": Fault("it calls `os._exit(0)`", _ENDED.format(0)),
    "large": Fault("it is killed while it sends a batch that is more than a pipe holds", _ENDED.format(-9)),
    "can't start": Fault(
        "it can't read the source when it starts", "FileNotFoundError: there is no data", thorough=True
    ),
    "can't start, resumed": Fault(
        "it can't read the source when it starts, in a run that is resumed", _ENDED.format(0)
    ),
    "can't be pickled": Fault("its batch holds what pickle refuses, such as a generator", _EXIT.format(1)),
}

# A checkpoint of a loader, by what becomes of its file.
CHECKPOINTS = {
    "cut off": Fault(
        "it is cut off", "ValueError: `state` must be whole, as JSON: got … in FILE"
    ),
    "empty": Fault("it is empty", "ValueError: `state` must be whole, as JSON: got … in FILE"),
    "edited": Fault(
        "a number became text", "ValueError: `last_seen_indices` must be ints: got {'0': '15'} in FILE"
    ),
    "beyond the end": Fault(
        "it is of more records than there are", "ValueError: `last_seen_indices` must lie within the 96 records: got 99 of worker 0"
    ),
    "another chain": Fault(
        "it is of another chain", "ValueError: `operators` must be those of the checkpoint: got `std` 0.2 for 0.1 in GaussianNoise"
    ),
    "another sampler": Fault(
        "it is of another order",
        "ValueError: `state` must be one of the same kind of source: got one of which Grain says: Sampler in checkpoint"
        " does not match dataloader sampler",
    ),
    "missing": Fault(
        "it is not there",
        "FileNotFoundError: `directory` must hold the states of all processes of one run: got [] in FOLDER",
    ),
}  # fmt: skip

# A program that saves its state every few steps; started again, it goes on from there.
_NOTHING = "nothing: started again it goes on from its last checkpoint"
PROGRAMS = {
    "reading": Fault("while it reads", _NOTHING),
    "augmenting": Fault("while it augments", _NOTHING),
    "saving": Fault("while it writes a checkpoint, half of which is there", _NOTHING),
    "between": Fault("between two steps", _NOTHING),
}
DISK = {
    "file": Fault("a full disk, under a checkpoint that the program writes", "OSError: [Errno 27] File too large"),
    "Orbax": Fault("a full disk, under one that Orbax writes", "an error of Orbax's that says `File too large`"),
}

# How an iterator is used.
USES = {
    "next": Fault(
        "`next` from two threads at once",
        "RuntimeError: `iterator` must be used by one thread at a time: got a call while another thread's goes on",
    ),
    "set_state": Fault(
        "`set_state` while another thread waits in `next`",
        "RuntimeError: `iterator` must be used by one thread at a time: got a call while another thread's goes on",
    ),
    "get_state": Fault("`get_state` while another thread waits in `next`", "the state of the batch before"),
    "close": Fault("`close` while another thread waits in `next`", "that thread gets its batch, and the iterator ends"),
    "interrupt": Fault("Ctrl-C while it waits in `next`", "KeyboardInterrupt"),
}

_TEMPLATE = """# What happens when something goes wrong

Whatever `next` raises, the iterator stays behind the batch that it handed out last: `get_state` is that of this batch, and
the next `next` makes the same batch once more, with new worker processes where there were any. So a read that failed can be
tried again, and a run that ended goes on from its last checkpoint with the batches that it would have had, bit for bit. A
record that fails each time has to go before it is batched: `.filter(...)`, or `grain.transforms.Filter` in the operations.

No wait for a worker process that has ended is without end: within {grace} seconds an error tells of it, however it ended, and within
{start} minutes where it was killed before it had read what it is sent to start.

Each row was done in [tests/test_faults.py](../tests/test_faults.py), to a `DeviceLoader` over a `grain.DataLoader`; what was
seen is the first sentence of what was raised. `python tests/fault_table.py` writes this page. `python -m benchmarks.soak` kills a
training or its workers again and again: in half an hour 37 times, with 2.4 million records delivered, each once, all of them
with the pixels of a run that nobody kills, and no process left ([results](results.md)).

## A record, or its batch

{records}

## A worker process

{workers}

Of one that dies while it sends a batch, whatever it dies of, our error tells instead of Grain's `Worker process was terminated`.

## A checkpoint

{checkpoints}

## The program, killed with SIGKILL or SIGTERM

{programs}

Its worker processes end within two seconds, with their shared memory; so does `python train.py | tail`. Workers that are
still starting end once they have imported `grain_datarax`: import it first, if other imports take long.

## A full disk

{disk}

## One iterator in several hands

{uses}

## What is not covered

- Worker processes that import nothing of `grain_datarax` are as Grain leaves them: those of an `mp_prefetch` with neither
  `SeedRecords` nor anything else of it below, in a program that imports it under `if __name__ == "__main__":` alone.
- `StopIteration` in an operation in front of `grain.IterDataset.batch` ends that batch early, unseen. Use `grain.DataLoader` or
  `grain.MapDataset.batch`, or catch it.
- A worker that hangs: nobody can tell it from a slow one.
- A handler of a signal that saves the state while `next` goes on may save that of a batch which the program never got. Let the
  handler set a flag, and save between two steps.
"""


def _table(head, faults):
    lines = [f"| {head} | what is seen | what is lost |", "| --- | --- | --- |"]
    for fault in faults.values():
        seen = f"``{fault.seen}``" if re.match(r"\w+(Error|Warning|Ended|Interrupt)\b", fault.seen) else fault.seen
        lines.append(f"| {fault.done} | {seen} | {fault.lost} |")
    return "\n".join(lines)


def page():
    """The page's text."""
    from grain_datarax import waiting

    return _TEMPLATE.format(
        grace=round(waiting.GRACE + waiting.LOOK),
        start=round(waiting.START / 60),
        records=_table("what became of it", RECORDS),
        workers=_table("what became of it", WORKERS),
        checkpoints=_table("what became of it", CHECKPOINTS),
        programs=_table("when", PROGRAMS),
        disk=_table("what was done", DISK),
        uses=_table("what was done", USES),
    )


if __name__ == "__main__":
    PAGE.write_text(page())
