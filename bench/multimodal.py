#!/usr/bin/env python3
"""The multi-modal model on its two data sets (./launch/scripts/fetch_sensors.py), on two ranks.

    bench/multimodal.py [--seeds 5]

Prints the test accuracy on BasicMotions for several seeds, with both sensors and with either missing; the forecast error on
Daphnet beside that of predicting no change, for the ankle from all three sensors and from the ankle alone; and the time of a
training step with sensors missing, as a ratio to a step with all."""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANKLE = "model.modalities={ankle: {channels: 3}}"


def run(command, config, folder, *settings):
    arguments = [ROOT / "launch/mpirun.sh", "2", command, ROOT / "configs" / config, "--set", f"run={folder}/run"]
    arguments += [option for setting in settings for option in ("--set", setting)]
    return subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def last_row(text):
    """The table's row of the longest context, which the line with time and memory follows."""
    return [float(number) for number in text.strip().splitlines()[-2].split()]


def motions(seeds):
    results = {"both": [], "without gyroscope": [], "without accelerometer": []}
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            settings = [f"training.seed={seed}"]
            run("train", "multimodal-motions.yaml", folder, *settings)
            for name, accuracies in results.items():
                missing = [] if name == "both" else [f"data.missing=[{name.split()[-1]}]"]
                accuracies.append(last_row(run("eval", "multimodal-motions.yaml", folder, *settings, *missing))[3])
    for name, accuracies in results.items():
        print(f"BasicMotions, {name:22}: test accuracy, median of {seeds} seeds {statistics.median(accuracies):.3f}, "
              f"lowest {min(accuracies):.3f}", flush=True)


def daphnet():
    for name, settings in (("all three from all three", []),
                           ("ankle from all three", ["model.head.forecast=[ankle]"]),
                           ("ankle from the ankle", [ANKLE])):
        with tempfile.TemporaryDirectory() as folder:
            run("train", "multimodal-daphnet.yaml", folder, *settings)
            row = last_row(run("eval", "multimodal-daphnet.yaml", folder, *settings))
            print(f"Daphnet, {name:24}: squared error {row[2]:.4f}, of no change {row[3]:.4f}, ratio {row[2] / row[3]:.3f}", flush=True)


def step_seconds(*settings):
    with tempfile.TemporaryDirectory() as folder:
        run("train", "multimodal-daphnet.yaml", folder, "training.steps=25", "model.modality_dropout=0", *settings)
        lines = (Path(folder) / "run/metrics.jsonl").read_text().splitlines()
        return statistics.median(json.loads(line)["seconds"] for line in lines[5:])


def missing_time():
    whole, one, two = [], [], []
    for _ in range(3):  # interleaved, because machines are noisy
        whole.append(step_seconds())
        one.append(step_seconds("data.missing=[trunk]"))
        two.append(step_seconds("data.missing=[trunk, leg]"))
    for name, seconds in (("one of three missing", one), ("two of three missing", two)):
        print(f"a training step with {name}: {statistics.median(seconds) / statistics.median(whole):.2f} of one with all "
              f"({statistics.median(whole) * 1000:.0f} ms)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    motions(options.seeds)
    daphnet()
    missing_time()


if __name__ == "__main__":
    main()
