#!/usr/bin/env python3
"""Time and memory of GigaPath's slide encoder on a slide of random tiles, with random weights.

    bench/slide_encoder.py [--tiles 100000] [--ranks 1 2] [--set KEY=VALUE ...]

A slide for each number of tiles is written to a temporary folder (6 kB a tile). Prints eval's own time and the largest rank's
peak memory."""

import argparse
import json
import random
import struct
import subprocess
import tempfile
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANNELS = 1536


def write_slide(path, tiles):
    random.seed(1)
    header = {"tiles": {"dtype": "F32", "shape": [tiles, CHANNELS], "data_offsets": [0, tiles * CHANNELS * 4]},
              "coords": {"dtype": "F32", "shape": [tiles, 2], "data_offsets": [tiles * CHANNELS * 4, tiles * (CHANNELS + 2) * 4]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = array("f", [random.gauss(0, 1) for _ in range(CHANNELS * 257)])  # repeated, but against the rows
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, tiles, 251):
            count = min(251, tiles - begin)
            shift = begin % 6 * CHANNELS
            file.write(block[shift:shift + count * CHANNELS].tobytes())
        side = int(tiles ** 0.5) + 1
        array("f", [256 * coordinate for tile in range(tiles) for coordinate in (tile % side, tile // side)]).tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, nargs="+", default=[100_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    for tiles in options.tiles:
        with tempfile.TemporaryDirectory() as folder:
            write_slide(Path(folder) / "slide.safetensors", tiles)
            settings = [f"run={folder}/run", f"data.train=[{folder}/slide.safetensors]",
                        f"data.validation=[{folder}/slide.safetensors]", *options.settings]
            for ranks in options.ranks:
                command = [ROOT / "launch/mpirun.sh", str(ranks), "eval", ROOT / "configs/slide-encoder.yaml", "--checkpoint", "none"]
                command += [option for setting in settings for option in ("--set", setting)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                print(f"{tiles} tiles, {ranks} ranks: {output.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
