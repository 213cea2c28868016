#!/usr/bin/env python3
"""Kills a training again and again, at random moments and places, and compares what comes out with a run that nobody
disturbed: weights, optimizer and metrics to the last bit, and nothing left over.

    kill.py LONGNET MPIRUN [--kills 20] [--ranks 2] [--seed 1]
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """\
model: {{type: decoder, vocabulary: 128, width: 16, layers: 2, heads: 4, feed_forward: 32, dropout: 0.1,
        attention: {{segments: [16, 64], rates: [1, 2]}}}}
data: {{train: [{folder}/text], validation_fraction: 0.2, sequence_length: 64}}
parallel: {{threads: 1}}
training: {{steps: {steps}, batch_size: 4, seed: 3}}
checkpoint: {{every_steps: 1, keep: 2}}
logging: {{every_steps: 1000000}}
run: {folder}/run
"""


def processes(folder):
    """Numbers and command lines of the processes that work in a folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and int(entry.name) != os.getpid():
            found[int(entry.name)] = command.split(b"\0")[0].decode(errors="replace")
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def strike(folder, chance):
    """Kills a rank, all ranks or mpirun; says what."""
    running = processes(folder)
    ranks = [pid for pid, program in running.items() if not program.endswith("mpirun")]
    mpirun = [pid for pid, program in running.items() if program.endswith("mpirun")]
    kind = chance.choice(["a rank", "all ranks", "mpirun"])
    victims = {"a rank": chance.sample(ranks, min(1, len(ranks))), "all ranks": ranks, "mpirun": mpirun}[kind]
    return kind if any([kill(pid) for pid in victims]) else "nobody"


def trajectory(run):
    return [(line["step"], line["loss"], line["gradient_norm"], line["tokens"])
            for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())]


def compare(disturbed, reference):
    """What differs."""
    faults = []
    if trajectory(disturbed) != trajectory(reference):
        faults.append("the metrics differ")
    names = sorted(path.name for path in (reference / "checkpoints").iterdir())
    if sorted(path.name for path in (disturbed / "checkpoints").iterdir()) != names:
        return faults + ["the checkpoints have other names"]
    for shard in sorted((reference / "checkpoints" / names[-1]).glob("*.safetensors")):
        if (disturbed / "checkpoints" / names[-1] / shard.name).read_bytes() != shard.read_bytes():
            faults.append(f"{names[-1]}/{shard.name} differs")
    faults += [f"left over: {path}" for path in disturbed.rglob("*") if "partial" in path.name or path.name == "lock"]
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("longnet")
    parser.add_argument("mpirun")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="longnet-faults-"))
    (folder / "text").write_text("".join(f"line {i}: the quick brown fox jumps over {i * i % 97} lazy dogs\n" for i in range(200)))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, steps=40 * options.kills))
    command = [options.mpirun, "--quiet", "--oversubscribe", "--bind-to", "none", "-np", str(options.ranks), options.longnet, "train",
               str(folder / "config.yaml")]

    struck = {}
    for _ in range(options.kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(chance.uniform(0, 3))
        what = strike(folder, chance)
        while what == "nobody" and process.poll() is None:  # those are not there yet
            time.sleep(0.02)
            what = strike(folder, chance)
        struck[what] = struck.get(what, 0) + 1
        errors = process.communicate(timeout=60)[1]
        deadline = time.time() + 30
        while processes(folder) and time.time() < deadline:
            time.sleep(0.05)
        if processes(folder):
            sys.exit(f"still running after {what} was killed: {processes(folder)}")
        if process.returncode in (1, 2, 3, 4, 5):
            sys.exit(f"after a kill the program refused with {process.returncode}: {errors}")
    last = subprocess.run(command, capture_output=True, text=True)
    if last.returncode != 0:
        sys.exit(f"the last start failed with {last.returncode}: {last.stdout}{last.stderr}")
    subprocess.run([*command, "--set", f"run={folder}/reference"], check=True, stdout=subprocess.DEVNULL)

    faults = compare(folder / "run", folder / "reference")
    print("killed: " + ", ".join(f"{what} {count}" for what, count in sorted(struck.items())) +
          f"; {len(trajectory(folder / 'run'))} steps; " + ("; ".join(faults) if faults else "all as undisturbed, to the last bit"))
    if faults:
        sys.exit(f"{folder} is kept")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
