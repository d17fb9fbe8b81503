"""Real processes that are stopped, killed, or sent into one folder: slow trials.

    python tests/trials.py kills --tries 50      # a run goes on to the same end
    python tests/trials.py signals --tries 24    # each ends at once, in one line
    python tests/trials.py folder                # of two runs in one, one is refused
    python tests/trials.py orphans               # workers end with who started them

Prints what was seen, and ends with status 1 if anything was not as it has to be.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from conftest import make_dataset, pictures

from train.record import workdir

AT_ONCE = 3.0  # seconds
EPOCHS_A_KILL = 6  # enough that the run is not done before its last kill
TEXT = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


SMALL_HORSES = str(pathlib.Path(__file__).parent / "small_horses.py")


def command(sets, *args, start=(SMALL_HORSES,)):
    """The command line of a run, of the network that starts at once if not told."""
    common = ["--dataset=pictures", f"--data-dir={sets}", "--batch-size=8"]
    return [sys.executable, *start, *common, *args]


def kills(sets, folder, options):
    """Tells whether a run that is killed and resumed ends as one that is not.

    To the bit, with each epoch in its record once. The moments are uniform in the first
    seconds after it goes on, so that many fall into the writing of a checkpoint.
    """
    rng, seen = random.Random(options.seed), collections.Counter()
    epochs, killed = EPOCHS_A_KILL * options.tries, folder / "killed"

    def args(run, *more):
        given = ("--gc", f"--epochs={epochs}", f"--workdir={run}", *more)
        return command(sets, *given, start=("-m", "train.horses"))

    subprocess.run(args(folder / "whole"), check=True, stdout=subprocess.DEVNULL)
    for _ in range(options.tries):
        with subprocess.Popen(args(killed, "--resume"), **TEXT) as process:
            next(line for line in process.stdout if line.startswith("Compiled"))
            time.sleep(rng.uniform(0, options.seconds))
            seen["ended before" if process.poll() is not None else "killed"] += 1
            process.kill()
        seen["while saving"] += any((killed / "checkpoints").glob("*tmp*"))
        print(f"after epoch {len(workdir.read_lines(killed / 'metrics.jsonl'))}")
    subprocess.run(args(killed, "--resume"), check=True, stdout=subprocess.DEVNULL)
    print(*(f"{count} {words}" for words, count in seen.items()), sep=", ")
    same = fingerprint(killed) == fingerprint(folder / "whole")
    return same and seen["killed"] == options.tries


def fingerprint(run):
    """Returns all numbers of a finished run but its times."""
    import jax

    from train.engine import checkpoint

    lines = (run / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) | {"epoch_seconds": 0} for line in lines]
    params = jax.tree.leaves(checkpoint.load_params(run / "params"))
    diagnostics = (run / "diagnostics.jsonl").read_text()
    return metrics, diagnostics, [leaf.tobytes() for leaf in params]


def signals(sets, folder, options):
    """Tells how runs ended that got a signal in their first seconds."""
    rng, seen = random.Random(options.seed), collections.Counter()
    for i in range(options.tries):
        signum, wait = SIGNALS[i % 3], rng.uniform(0.2, options.seconds)
        run = folder / str(i)
        args = ["--gc", "--epochs=50", f"--workdir={run}"]
        args = command(sets, *args, start=("-m", "train.horses"))
        with subprocess.Popen(args, **TEXT) as process:
            time.sleep(wait)
            process.send_signal(signum)
            sent = time.monotonic()
            _, error = process.communicate(timeout=120)
            took = time.monotonic() - sent
        told = error.startswith("error: stopped by ") and error.count("\n") == 1
        halves = [*folder.rglob("*.unfinished"), *folder.rglob("*tmp*")]
        clean = process.returncode == 128 + signum and told and not halves
        if clean and took < AT_ONCE:
            seen["clean"] += 1
        else:
            words = f"{signum.name} after {wait:.1f} s: status {process.returncode}"
            seen[f"{words}, {took:.1f} s, {halves}, {error[-200:]!r}"] += 1
    for words, count in seen.most_common():
        print(count, words)
    return seen["clean"] == options.tries


def two_in_one_folder(sets, folder, options):
    """Tells how two runs ended that were started in one folder at once."""
    run, epochs = folder / "run", 40
    args = ["--no-evaluate", f"--epochs={epochs}", f"--workdir={run}"]
    both = [
        subprocess.Popen(command(sets, *args, f"--seed={seed}"), **TEXT)
        for seed in (1, 2)
    ]
    errors = [process.communicate(timeout=600)[1] for process in both]
    statuses = [process.returncode for process in both]
    print(statuses, *(error.strip() for error in errors if error))
    lines = workdir.read_lines(run / "metrics.jsonl")
    whole = [line["epoch"] for line in lines] == [*range(1, epochs + 1)]
    (refused,) = [error for error in errors if error] or [""]
    named = "is in use by process" in refused and refused.count("\n") == 1
    return whole and named and sorted(statuses) == [0, 1]


def orphans(sets, folder, options):
    """Tells whether a comparison goes on at once whose first process was killed."""
    out = folder / "out"
    args = ["--arms", "none", "gradient", "--seeds=1", "--jobs=2", f"--out={out}"]
    args = command(sets, *args, "--epochs=4000", start=(SMALL_HORSES, "compare"))
    with subprocess.Popen(args, **TEXT) as process:
        while not [*out.glob("*/metrics.jsonl")]:
            time.sleep(0.1)
        workers = children(process.pid)
        process.kill()
        process.communicate()
    time.sleep(AT_ONCE)
    left = [pid for pid in workers if pathlib.Path(f"/proc/{pid}").exists()]
    print(f"{len(workers)} processes, {len(left)} of them left after {AT_ONCE:g} s")
    for path in out.glob("*/metrics.jsonl"):
        before = workdir.read_lines(path)
        time.sleep(1)
        if workdir.read_lines(path) != before:
            return False
    return len(workers) >= 2 and not left


def children(pid):
    """Returns the processes that a process has started."""
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trials = {
        "kills": kills, "signals": signals, "folder": two_in_one_folder,
        "orphans": orphans,
    }  # fmt: skip
    parser.add_argument("trial", choices=trials)
    parser.add_argument("--tries", type=int, default=24, help="signals that are sent")
    parser.add_argument("--seconds", type=float, default=5, help="until the last one")
    parser.add_argument("--seed", type=int, default=0, help="of their moments")
    options = parser.parse_args()
    os.chdir(pathlib.Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as temporary:
        sets, folder = pathlib.Path(temporary, "sets"), pathlib.Path(temporary, "runs")
        folder.mkdir()
        shape = (94, 94, 3)
        splits = {"train": pictures(24, shape), "test": pictures(8, shape)}
        make_dataset(sets, splits, shape, 2)
        good = trials[options.trial](sets, folder, options)
    print("as it has to be" if good else "NOT AS IT HAS TO BE")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
