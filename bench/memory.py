#!/usr/bin/env python3
"""Peak memory of a training step, in bytes a token: the slope between two sequence lengths, so that weights do not count.

    bench/memory.py [--width 256] [--layers 8] [--lengths 8192 32768]

Without and with recomputation, and with a vocabulary of 256 and of 50,257: logits held for all tokens at once would add 4 bytes
for each of the vocabulary's entries to each token."""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def peak_bytes(length, vocabulary, recompute, options):
    with tempfile.TemporaryDirectory() as folder:
        settings = {"run": folder + "/run", "model.width": options.width, "model.layers": options.layers,
                    "model.feed_forward": 4 * options.width, "model.heads": options.width // 64,
                    "model.vocabulary": vocabulary, "data.sequence_length": length, "training.batch_size": 1,
                    "training.steps": 1, "training.precision": "fp32", "training.recompute": str(recompute).lower(),
                    "checkpoint.every_steps": 0}
        command = [ROOT / "launch/mpirun.sh", "1", "train", ROOT / "configs/paper-125m.yaml"]
        command += [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
        subprocess.run(command, check=True, capture_output=True)
        return json.loads((Path(folder) / "run/metrics.jsonl").read_text().splitlines()[-1])["peak_memory_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs=2, default=[8192, 32768])
    options = parser.parse_args()
    short, long = options.lengths
    print(f"width {options.width}, {options.layers} layers, float32, one rank")
    print(f"{'recompute':>9} {'vocabulary':>10} {'MiB at ' + str(short):>14} {'MiB at ' + str(long):>14} {'bytes a token':>14}")
    for recompute in (False, True):
        for vocabulary in (256, 50257):
            peaks = [peak_bytes(length, vocabulary, recompute, options) for length in options.lengths]
            slope = (peaks[1] - peaks[0]) / (long - short)
            print(f"{str(recompute):>9} {vocabulary:>10} {peaks[0] / 2**20:>14.0f} {peaks[1] / 2**20:>14.0f} {slope:>14.0f}", flush=True)


if __name__ == "__main__":
    main()
