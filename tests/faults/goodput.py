#!/usr/bin/env python3
"""How much of its time a training spends on steps that last, while its ranks are killed again and again and launch/mpirun.sh starts it again;
and where the rest goes.

    goodput.py LONGNET [--seconds 600] [--mean 20] [--ranks 2] [--every-steps 10] [--seed 1]
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "launch/mpirun.sh"
CONFIG = """\
model: {{type: decoder, vocabulary: 256, width: 128, layers: 2, heads: 4, feed_forward: 512, attention: {{segments: [256, 1024], rates: [1, 4]}}}}
data: {{train: [{folder}/text], validation_fraction: 0.2, sequence_length: 1024}}
parallel: {{threads: 1}}
training: {{steps: 1000000, batch_size: 2, seed: 3}}
optimizer: {{schedule: constant}}
checkpoint: {{every_steps: {every}, keep: 2}}
logging: {{every_steps: 1000000}}
run: {folder}/run
"""


def ranks_of(folder):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and b"longnet" in command.split(b"\0")[0]:
            found.append(int(entry.name))
    return found


def disturb(process, folder, options):
    """Kills a rank now and then; the number of kills."""
    chance = random.Random(options.seed)
    end, kills = time.time() + options.seconds, 0
    while True:
        wait = chance.expovariate(1 / options.mean)
        if time.time() + wait > end:
            time.sleep(max(0, end - time.time()))
            return kills
        time.sleep(wait)
        if process.poll() is not None:
            sys.exit(f"the training ended with {process.returncode}")
        ranks = ranks_of(folder)
        if ranks:
            os.kill(chance.choice(ranks), signal.SIGKILL)
            kills += 1


def start_ups(log):
    """Of each start that came to a step, the seconds of its parts."""
    lines = re.findall(r"start-up took [\d.]+ s: (.*)", log)
    return [{name: float(seconds) for name, seconds in re.findall(r"([a-zMPI ,]+?) ([\d.]+) s(?:, |$)", line)} for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longnet")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--mean", type=float, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--every-steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="longnet-goodput-"))
    (folder / "text").write_text("".join(f"line {i}: the quick brown fox jumps over {i * i % 97} lazy dogs\n" for i in range(20000)))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, every=options.every_steps))
    begin = time.time()
    process = subprocess.Popen([SCRIPT, "--restarts", "5", str(options.ranks), "train", str(folder / "config.yaml")], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={**os.environ, "LONGNET": options.longnet})
    kills = disturb(process, folder, options)
    process.send_signal(signal.SIGTERM)
    if process.wait(timeout=120) != 75:
        sys.exit(f"the training ended with {process.returncode}")
    wall = time.time() - begin

    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    if [line["step"] for line in lines] != list(range(1, len(lines) + 1)):
        sys.exit(f"steps are missing in {folder}")
    useful = sum(line["seconds"] for line in lines)
    starts = start_ups((folder / "run/log.txt").read_text())
    starting = sum(sum(start.values()) for start in starts)
    print(f"{kills} kills in {wall:.0f} s: {len(lines)} steps of {useful / len(lines):.3f} s last, {useful:.0f} s; goodput {useful / wall:.3f}")
    print(f"{len(starts)} starts came to a step and took {starting:.0f} s; left for steps made twice, ends and waiting: {wall - useful - starting:.0f} s")
    print("a start, on average: " + ", ".join(f"{name} {sum(start[name] for start in starts) / len(starts):.2f} s" for name in starts[0]))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
