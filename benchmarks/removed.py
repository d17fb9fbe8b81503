"""Measures how much of each kernel's gradient GC removes, by what feeds the kernel.

    python -m benchmarks.removed            # 2 to 3 minutes on 2 cores, no internet
    python -m benchmarks.removed --write    # and saves the results

It uses small networks at initialization and after short training without GC, with one
seed: decoders on the text of this repository's licence, and convolutional networks on
the drawn horses and humans. A share is the mean over ten batches. With `--write` the
tables go into docs/removed.json, with a picture next to it.
"""

import json

import tyro

IMAGES = 256


def main(write: bool = False) -> None:
    """Measures and prints and, if asked, writes the record and the picture.

    Args:
      write: Write docs/removed.json and its picture.
    """
    import jax

    from benchmarks.effect import networks, page, shares

    images, labels = networks.draw(IMAGES)
    cases = networks.cases(images, labels, text_steps=570, image_steps=60)
    measured = [shares.measure(*case) for case in cases.items()]
    record = {
        "jax": jax.__version__,
        "trainings": [summary for summary, _ in measured],
        "kernels": [row for _, rows in measured for row in rows],
    }
    page.show(record)
    if write:
        page.RECORD.write_text(json.dumps(record, indent=1) + "\n")
        page.plot(record, page.RECORD.with_suffix(".png"))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.removed", description=__doc__)
