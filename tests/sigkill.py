"""Kills a run at random moments, resumes it each time, and compares its end.

    python tests/sigkill.py --kills 50

The run that was killed must end with the parameters and metrics, to the bit, of one
that was not, with each epoch in its record once. The moments are uniform in the first
seconds after the run has gone on training, so that many fall into the writing of a
checkpoint.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from conftest import make_dataset, pictures

from train.record import workdir

SECONDS = 3.0  # of training, in which a moment is chosen
EPOCHS_A_KILL = 6  # enough that the run is not done before its last kill


def command(folder, run, epochs, *args):
    return [
        sys.executable, "-m", "train.horses", "--gc", "--dataset=pictures",
        f"--data-dir={folder}", "--batch-size=4", f"--epochs={epochs}",
        f"--workdir={run}", *args,
    ]  # fmt: skip


def fingerprint(run):
    """Returns all numbers of a finished run but its times."""
    import jax

    from train.engine import checkpoint

    lines = (run / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) | {"epoch_seconds": 0} for line in lines]
    params = jax.tree.leaves(checkpoint.load_params(run / "params"))
    diagnostics = (run / "diagnostics.jsonl").read_text()
    return metrics, diagnostics, [leaf.tobytes() for leaf in params]


def kill_once(args, seconds):
    """Starts the run and kills it so long after it has begun to train."""
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("Compiled"):
                break
        time.sleep(seconds)
        ended = process.poll() is not None
        process.kill()
    return not ended


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    epochs = EPOCHS_A_KILL * options.kills
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        shape = (94, 94, 3)
        splits = {"train": pictures(8, shape), "test": pictures(4, shape)}
        make_dataset(folder, splits, shape, 2)
        whole, killed = folder / "whole", folder / "killed"
        subprocess.run(
            command(folder, whole, epochs), check=True, stdout=subprocess.DEVNULL
        )
        kills = while_saving = 0
        while kills < options.kills:
            args = command(folder, killed, epochs, "--resume")
            if not kill_once(args, rng.uniform(0, SECONDS)):
                break
            kills += 1
            saving = any((killed / "checkpoints").glob("*tmp*"))
            while_saving += saving
            done = len(workdir.read_lines(killed / "metrics.jsonl"))
            print(f"kill {kills}: after epoch {done}{', saving' * saving}", flush=True)
        subprocess.run(
            command(folder, killed, epochs, "--resume"),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        same = fingerprint(killed) == fingerprint(whole)
    print(
        f"{kills} SIGKILLs, {while_saving} of them while a checkpoint was written: "
        f"the {epochs} epochs ended {'the same' if same else 'OTHERWISE'}."
    )
    return 0 if same and kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
