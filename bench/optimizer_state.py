#!/usr/bin/env python3
"""Memory of a rank with the optimizer's state on every rank and divided among them (parallel.shard_optimizer), at several rank counts.

    bench/optimizer_state.py [--ranks 1 2 4 8] [--width 768] [--layers 6]

Counted: weights and gradients, 4 bytes each, and two averages of 4 bytes that are divided. Measured: the peak of the largest rank, less that
of the same training of a model that is almost nothing. The last column is the time of a step, which here is little but the update."""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def train(ranks, sharded, width, layers):
    """Peak bytes of a rank, seconds of the second step."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"run": folder + "/run", "model.width": width, "model.layers": layers, "model.feed_forward": 4 * width, "model.heads": 4,
                    "model.vocabulary": 256, "data.sequence_length": 64 * ranks, "training.batch_size": 1, "training.steps": 3,
                    "training.precision": "fp32", "checkpoint.every_steps": 0, "parallel.threads": 1, "parallel.shard_optimizer": str(sharded).lower()}
        command = [ROOT / "launch/mpirun.sh", str(ranks), "train", ROOT / "configs/paper-125m.yaml"]
        command += [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
        subprocess.run(command, check=True, capture_output=True)
        lines = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
        return lines[-1]["peak_memory_bytes"], min(line["seconds"] for line in lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    weights = options.layers * 12 * options.width**2
    print(f"about {weights / 1e6:.0f} million weights in float32; bytes a weight on the largest rank")
    print(f"{'ranks':>5} {'divided':>8} {'counted':>8} {'measured':>9} {'seconds':>8}")
    for ranks in options.ranks:
        nothing, _ = train(ranks, True, 16, 1)
        for sharded in (False, True):
            peak, seconds = train(ranks, sharded, options.width, options.layers)
            counted = 8 + 8 / (ranks if sharded else 1)
            print(f"{ranks:>5} {str(sharded):>8} {counted:>8.1f} {(peak - nothing) / weights:>9.1f} {seconds:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
