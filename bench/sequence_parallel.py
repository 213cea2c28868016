#!/usr/bin/env python3
"""Training steps on 2 ranks of 1 thread against 1 rank of 2 threads: the same work on the same cores.

    bench/sequence_parallel.py [--layers 4] [--length 8192] [--rounds 2]

The two take turns, so that a noisy machine disturbs both; the ratio is that of their medians."""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def step_seconds(ranks, threads, options, steps):
    with tempfile.TemporaryDirectory() as folder:
        settings = {"run": folder + "/run", "model.layers": options.layers, "model.vocabulary": 256,
                    "data.sequence_length": options.length, "training.batch_size": 1, "training.steps": steps,
                    "training.precision": "fp32", "training.recompute": "false", "parallel.threads": threads,
                    "checkpoint.every_steps": 0}
        command = [ROOT / "launch/mpirun.sh", str(ranks), "train", ROOT / "configs/paper-125m.yaml"]
        command += [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert re.search(f"{ranks} ranks = .* with {threads} threads each", output), output
        lines = (Path(folder) / "run/metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["seconds"] for line in lines[1:]]  # the first step warms up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    times = {(1, 2): [], (2, 1): []}
    for _ in range(options.rounds):
        for (ranks, threads), seconds in times.items():
            seconds += step_seconds(ranks, threads, options, steps=3)
    medians = {key: statistics.median(seconds) for key, seconds in times.items()}
    for (ranks, threads), seconds in times.items():
        print(f"{ranks} ranks x {threads} threads: median {medians[ranks, threads]:.2f} s a step, of "
              + " ".join(f"{value:.2f}" for value in seconds))
    print(f"2 ranks of 1 thread take {medians[2, 1] / medians[1, 2]:.3f} times 1 rank of 2 threads")


if __name__ == "__main__":
    main()
