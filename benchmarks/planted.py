"""A copy of a data set with wrong labels, and with images that have none: to try how the queue helps to mend them.

    python benchmarks/planted.py FOLDER COPY [--wrong 0.1] [--pool 0.5] [--seed 0]

FOLDER has a folder of images for each class. COPY, which must not exist, gets the same folders, and COPY.pool the
images without a label. File names stay, so the true label of an image is that of the same name in FOLDER.
"""

import argparse
import random
import shutil
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("copy", type=Path, metavar="COPY")
    parser.add_argument("--wrong", type=float, default=0.1, help="share of labels that are wrong")
    parser.add_argument("--pool", type=float, default=0.5, help="share of images that have no label")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pool = options.copy.with_name(f"{options.copy.name}.pool")
    if taken := [str(folder) for folder in (options.copy, pool) if folder.exists()]:
        sys.exit(f"{' and '.join(taken)} exist already: name another folder, or remove them")
    files = sorted(path for path in options.folder.glob("*/*") if path.is_file() and path.name[0] != ".")
    labels = sorted({path.parent.name for path in files})
    generator = random.Random(options.seed)
    generator.shuffle(files)
    without, labelled = files[: round(options.pool * len(files))], files[round(options.pool * len(files)) :]
    wrong = {*labelled[: round(options.wrong * len(labelled))]}
    for path in files:
        others = [label for label in labels if label != path.parent.name]
        label = generator.choice(others) if path in wrong else path.parent.name
        target = (pool if path in without else options.copy / label) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    print(
        f"{options.copy}: {len(labelled):,} images, {len(wrong):,} with a wrong label; {pool}: {len(without):,} without"
    )


if __name__ == "__main__":
    main()
