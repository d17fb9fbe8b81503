"""Splits the published training images of horses_or_humans by figure, in five ways.

    python -m train.study.folds horse-or-human.zip folds

For K from 0 to 4, the test split of `--dataset horses_or_humans --data-dir folds/K` has
the figures whose number leaves the remainder K when divided by 5, and its training
split has the others. The archive is the one that TensorFlow Datasets downloads:
https://storage.googleapis.com/download.tensorflow.org/data/horse-or-human.zip
"""

import argparse
import io
import json
import pathlib
import re
import sys
import zipfile
from collections.abc import Callable

from train.config import expanded

FOLDS = 5
FIGURE = re.compile(r"(?:horses/horse|humans/human)(\d+)-\d+\.png")
SPLITS: dict[str, Callable[[int, int], bool]] = {  # by the names of their archives
    "horse-or-human.zip": lambda figure, fold: figure % FOLDS != fold,
    "validation-horse-or-human.zip": lambda figure, fold: figure % FOLDS == fold,
}


def one_split(
    archive: zipfile.ZipFile, belongs: Callable[[int, int], bool], fold: int
) -> bytes:
    """Returns an archive of the images whose figure belongs to a split of a fold."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as split:
        for name in archive.namelist():
            figure = FIGURE.fullmatch(name)
            if figure and belongs(int(figure[1]), fold):
                split.writestr(name, archive.read(name))
    return out.getvalue()


def stage(data_dir: pathlib.Path, name: str, files: dict[str, bytes]) -> None:
    """Lays out the archives of a data set like TFDS's download cache.

    Args:
      data_dir: the folder of TensorFlow Datasets.
      name: the data set's name.
      files: the bytes of each archive, by the last part of its address.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import resource

    cache = data_dir / "downloads"
    cache.mkdir(parents=True, exist_ok=True)
    for url, info in tfds.builder(name, data_dir=data_dir).url_infos.items():
        path = cache / resource.get_dl_fname(url, info.checksum)
        path.write_bytes(files[url.rpartition("/")[2]])
        record = {
            "dataset_names": [name],
            "original_fname": info.filename,
            "urls": [url],
            "url_info": {"size": path.stat().st_size, "checksum": info.checksum},
        }
        path.with_name(f"{path.name}.INFO").write_text(json.dumps(record))


def main() -> int:
    """Writes the five folders and returns the command's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.study.folds", description=main.__doc__
    )
    parser.add_argument("archive", type=expanded, help="horse-or-human.zip")
    parser.add_argument("out", type=expanded, help="a new folder")
    args = parser.parse_args()
    try:
        with zipfile.ZipFile(args.archive) as archive:
            for fold in range(FOLDS):
                files = {
                    name: one_split(archive, belongs, fold)
                    for name, belongs in SPLITS.items()
                }
                stage(args.out / str(fold), "horses_or_humans", files)
    except (OSError, zipfile.BadZipFile) as error:
        print(f"error: the folds were not made: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
