"""Kills a training again and again, and shows that nothing is lost, repeated, changed or left behind.

    python -m benchmarks.soak [--minutes 30] [--every 60] [--seed 0] [--folder FOLDER] [--record]

A program trains from a `DeviceLoader` with two worker processes, and writes a checkpoint every 50 batches. About once
in `--every` seconds, at a random moment, it or one of its workers is killed; it goes on from its last checkpoint, or,
where a worker was killed, from the batch before. In the end every record must have been delivered once, with the pixels
of an uninterrupted run without workers. `--record` writes the result into RESULTS.md.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.soak_program import BATCH, EVERY, ROW, expected_rows

RESULTS = pathlib.Path(__file__).parent / "RESULTS.md"
STALLED = 120  # seconds without a batch
GONE = 2  # seconds within which all is to have ended
WARM = 10  # seconds until a process's memory has settled


@dataclasses.dataclass
class Counts:
    """What happened, over all lives of the program."""

    lives: int = 0
    killed: dict[str, int] = dataclasses.field(default_factory=dict)
    retried: int = 0
    orphans: int = 0
    slowest_end: float = 0.0
    left: int = 0
    made: int = 0
    memory: list[tuple[str, np.ndarray]] = dataclasses.field(default_factory=list)  # minutes, MiB; of each process

    def kill(self, what: str) -> None:
        self.killed[what] = self.killed.get(what, 0) + 1


class Life:
    """One run of the program, from its start to its end."""

    def __init__(self, folder: pathlib.Path, batches: int | None) -> None:
        self.prefix = f"gdx{os.getpid() % 2**16:04x}_"  # Python takes no longer one
        self.progress = folder / "progress"
        command = [sys.executable, "-m", "benchmarks.soak_program", str(folder), str(batches or 0)]
        environment = {**os.environ, "PREFIX": self.prefix}
        with open(folder / "log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        self._samples: dict[int, list[tuple[float, float]]] = {}

    def processes(self) -> list[tuple[int, float, str]]:
        """Number, megabytes, and command of each that is alive."""
        text = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pgid=,stat=,pid=,rss=,args="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(maxsplit=4) for line in text.splitlines()]
        mine = [row for row in rows if int(row[0]) == self.process.pid and not row[1].startswith("Z")]
        return [(int(row[2]), int(row[3]) / 1024, row[4]) for row in mine]

    def workers(self) -> list[int]:
        return [number for number, _, command in self.processes() if "spawn_main" in command]

    def left(self) -> list[str]:
        """Shared memory and semaphores, where they are files."""
        names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
        return [name for name in names if self.prefix in name]

    def sample(self) -> None:
        for number, megabytes, command in self.processes():
            if "resource_tracker" not in command:
                self._samples.setdefault(number, []).append((time.monotonic() / 60, megabytes))

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, counts: Counts) -> None:
        """Waits until all of it has ended, and counts what has not."""
        self.process.wait()
        ended = time.monotonic()
        while (alive := self.processes()) and time.monotonic() - ended < GONE:
            time.sleep(0.02)
        counts.slowest_end = max(counts.slowest_end, time.monotonic() - ended)
        counts.orphans += len(alive)
        for number, _, _ in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        counts.left += len(self.left())
        counts.lives += 1
        for number, samples in self._samples.items():
            who = "the program" if number == self.process.pid else "workers"
            counts.memory.append((who, np.array(samples)))


def live(life: Life, until: float, dice: random.Random, every: float, counts: Counts) -> None:
    """Lets the program run until it is killed, as it is when the time is over."""
    seen, moved = "", time.monotonic()
    starting = dice.random() < 0.2  # killed in its first seconds, too
    kill_at = time.monotonic() + (dice.uniform(0, 8) if starting else dice.uniform(0.5, 1.5) * every)
    while time.monotonic() < until:
        time.sleep(min(1.0, max(0.0, kill_at - time.monotonic())))
        if life.process.poll() is not None:
            raise RuntimeError(f"the program ended by itself, with {life.process.returncode}")
        now = life.progress.read_text() if life.progress.exists() else ""
        if now != seen:
            seen, moved = now, time.monotonic()
            life.sample()
        if time.monotonic() - moved > STALLED:
            raise RuntimeError(f"no batch came for {STALLED} seconds")
        if time.monotonic() < kill_at:
            continue
        kill_at = time.monotonic() + dice.uniform(0.5, 1.5) * every
        workers = life.workers()
        if not workers or dice.random() < 0.5:
            break
        number = dice.choice([signal.SIGKILL, signal.SIGTERM])
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(workers), number)
        counts.kill(f"a worker, {number.name}")
    number = dice.choice([signal.SIGKILL, signal.SIGTERM])
    life.process.send_signal(number)
    counts.kill(f"the program, {number.name}")
    life.end(counts)


def run(folder: pathlib.Path, minutes: float, every: float, seed: int) -> dict[str, str]:
    """Soaks it; the lines of the result."""
    dice, counts, checkpoint = random.Random(seed), Counts(), folder / "checkpoint"
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        with Life(folder, None) as life:
            live(life, until, dice, every, counts)
    committed = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
    with Life(folder, committed + EVERY) as life:  # once more, undisturbed, to its end
        if life.process.wait(timeout=600):
            raise RuntimeError(f"the last run ended with {life.process.returncode}")
        life.end(counts)
    counts.retried = (folder / "log").read_text().count("It tries again")
    counts.made = (folder / "made").stat().st_size
    return report(folder, minutes, every, counts)


def report(folder: pathlib.Path, minutes: float, every: float, counts: Counts) -> dict[str, str]:
    step = json.loads((folder / "checkpoint").read_text())["step"]
    rows = np.frombuffer((folder / "delivered").read_bytes(), ROW)
    wanted = expected_rows(step)
    seeds, times = np.unique(rows["seed"], return_counts=True)
    both = np.intersect1d(seeds, wanted["seed"])
    rows, wanted = (table[np.argsort(table["seed"], kind="stable")] for table in (rows, wanted))
    same = len(rows) == len(wanted) and bool((rows["seed"] == wanted["seed"]).all())
    different = int((rows != wanted).sum()) if same else "unknown"
    kills = "; ".join(f"{number} {what}" for what, number in sorted(counts.killed.items()))
    return {
        "minutes, and seconds between kills": f"{minutes:g}, {every:g}",
        "killed": kills,
        "lives of the program": str(counts.lives),
        "batches tried again after an error": str(counts.retried),
        f"batches of {BATCH} records delivered": str(step),
        "batches made, with those that were replayed": str(counts.made),
        "records missing": str(len(wanted) - len(both)),
        "records delivered twice": str(int((times - 1).sum())),
        "records of other pixels than without kills": str(different),
        "processes left after 2 seconds": str(counts.orphans),
        "slowest end of all processes": f"{counts.slowest_end:.2f} s",
        "shared memory left": str(counts.left),
        **{f"memory of {who}": memory_of(who, counts) for who in ("the program", "workers")},
    }


def memory_of(who: str, counts: Counts) -> str:
    """What processes have at their end, and how it grows, once it has settled: medians over the processes."""
    ends, slopes = [], []
    for kind, samples in counts.memory:
        settled = samples[samples[:, 0] > samples[0, 0] + WARM / 60]
        if kind == who and len(settled) > 10:
            ends.append(settled[-1, 1])
            slopes.append(np.polyfit(*settled.T, 1)[0])
    if not ends:
        return "not sampled"
    half = max(len(ends) // 2, 1)
    return (
        f"{statistics.median(ends[:half]):.0f} MiB in the first half of the time, {statistics.median(ends[-half:]):.0f}"
        f" in the second; {statistics.median(slopes):+.1f} MiB a minute ({len(ends)} processes)"
    )


def is_good(lines: dict[str, str]) -> bool:
    return all(lines[name] == "0" for name in lines if name.startswith(("records ", "processes left", "shared memory")))


def table(lines: dict[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in lines.items())])


def record(lines: dict[str, str]) -> None:
    """Writes the section of RESULTS.md anew."""
    import jax

    head = "## Soak"
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, JAX {jax.__version__}"
    words = f"`python -m benchmarks.soak`, {machine}: a training with two workers is killed again and again."
    text = f"{head}\n\n{words}\n\n{table(lines)}\n"
    before = RESULTS.read_text()
    if head in before:
        after = re.sub(rf"{head}\n.*?(?=\n## |\Z)", lambda _: text, before, flags=re.DOTALL)
    else:
        after = f"{before.rstrip()}\n\n{text}"
    RESULTS.write_text(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=60, help="seconds between kills, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, help="where its files stay; else they go with a good result")
    parser.add_argument("--record", action="store_true", help="write the result into RESULTS.md")
    arguments = parser.parse_args()
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"`--folder` must be empty: got {folder}. Remove what is in it, or name another.")
    try:
        lines = run(folder, arguments.minutes, arguments.every, arguments.seed)
    except RuntimeError as error:
        sys.exit(f"Failed, as {error}: see {folder / 'log'}.")
    print(table(lines))
    if arguments.record:
        record(lines)
    if not is_good(lines):
        sys.exit(f"Something was lost, repeated, changed or left behind: see {folder}.")
    if arguments.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
