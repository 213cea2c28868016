#!/usr/bin/env python3
"""What saving costs a training that saves after each step, and how fast it writes, next to dd with fsync on the same disk in the same run; how
fast a checkpoint that is in no cache is loaded, next to dd.

    bench/checkpoint.py [--ranks 1] [--width 1024] [--layers 7] [--tokens 4096] [--keep 1] [--folder FOLDER]

A step trains on some thousand tokens, so that it takes longer than its save. "alone" is the last save, which nothing goes beside."""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAVED = re.compile(r"saved step (\d+): (\d+) bytes, the shard of the first rank written in (\S+) s; the training waited (\S+) s")


def train(folder, options, steps):
    settings = {"run": f"{folder}/run", "model.width": options.width, "model.layers": options.layers, "model.feed_forward": 4 * options.width,
                "model.heads": options.width // 64, "model.vocabulary": 256, "data.sequence_length": options.tokens, "training.batch_size": 1,
                "training.steps": steps, "training.precision": "fp32", "checkpoint.every_steps": 1, "checkpoint.keep": options.keep}
    command = [ROOT / "launch/mpirun.sh", str(options.ranks), "train", ROOT / "configs/paper-125m.yaml"]
    command += [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    subprocess.run(command, check=True, capture_output=True)


def saves(folder, options):
    """Bytes, seconds of writing and seconds of waiting of each save. What the training has waited beside steps is in its metrics: for the
    beginning, the end, and the removal of the checkpoint before."""
    train(folder, options, steps=5)
    found = SAVED.findall(Path(f"{folder}/run/log.txt").read_text())
    totals = [json.loads(line)["save_seconds_waited"] for line in Path(f"{folder}/run/metrics.jsonl").read_text().splitlines()]
    beside = [after - before for before, after in zip(totals, totals[1:])] + [float(found[-1][3])]
    return [(int(size), float(written), waited) for (_, size, written, _), waited in zip(found, beside)]


def forget(files):
    """Takes them out of the cache."""
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(folder, options, steps):
    """Seconds of a training's start with the newest checkpoint, and the median seconds of dd for the same files."""
    log = Path(f"{folder}/run/log.txt")
    files = sorted(max(Path(f"{folder}/run/checkpoints").glob("step-*")).iterdir())
    passed = []
    def read():
        forget(files)
        begin = time.time()
        for file in files:
            subprocess.run(["dd", f"if={file}", "of=/dev/null", "bs=16M"], check=True, capture_output=True)
        passed.append(time.time() - begin)
    read()
    read()
    forget(files)
    train(folder, options, steps)
    return float(re.findall(r"start-up took .* checkpoint ([\d.]+) s", log.read_text())[-1]), statistics.median(passed)


def dd(folder, size):
    begin = time.time()
    subprocess.run(["dd", "if=/dev/zero", f"of={folder}/zeros", "bs=16M", f"count={size >> 24}", "conv=fsync"], check=True, capture_output=True)
    seconds = time.time() - begin
    Path(f"{folder}/zeros").unlink()
    return (size >> 24 << 24) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--keep", type=int, default=1)
    parser.add_argument("--folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        disk = [dd(folder, 1 << 30) for _ in range(2)]
        measured = saves(folder, options)
        disk += [dd(folder, 1 << 30) for _ in range(2)]
        disk = statistics.median(disk)
        size = measured[0][0]
        beside, (_, alone, waited_alone) = measured[:-1], measured[-1]
        waited = statistics.median(each[2] for each in beside)
        print(f"{size / 1e9:.2f} GB in {options.ranks} shards; dd: {disk / 1e6:.0f} MB/s")
        print(f"alone: {alone:.2f} s of writing, {size / alone / 1e6:.0f} MB/s, {size / alone / disk:.2f} of dd; the training waits {waited_alone:.2f} s")
        print(f"beside the next step: the training waits {waited:.3f} s, {waited / waited_alone:.3f} of a save alone "
              f"(writing took {statistics.median(each[1] for each in beside):.2f} s)")
        loads = [load(folder, options, steps) for steps in (6, 7, 8)]
        print("loaded in " + ", ".join(f"{seconds:.2f} s ({read / seconds:.2f} of dd's {size / read / 1e6:.0f} MB/s)" for seconds, read in loads))


if __name__ == "__main__":
    main()
