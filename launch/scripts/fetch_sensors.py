#!/usr/bin/env python3
"""Fetches two data sets of body-worn sensors into data/motions and data/daphnet, as safetensors files.

Both come with the wheel aeon 1.6.0 on PyPI, which is downloaded, not installed. Each channel is standardized with the mean
and standard deviation of its training part.

- BasicMotions: 40 + 40 recordings of 100 steps; the fields accelerometer (100, 3), gyroscope (100, 3) and label, one of
  Standing, Running, Walking, Badminton.
- Daphnet S06R02E0: one recording of 7,040 steps; the fields ankle, leg and trunk, (7040, 3) each. Training part: the first
  80 %.
"""

import csv
import io
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import zipfile
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["Standing", "Running", "Walking", "Badminton"]


def download():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--only-binary", ":all:", "--dest", folder, "aeon==1.6.0"], check=True)
        wheel, = Path(folder).glob("*.whl")
        return zipfile.ZipFile(io.BytesIO(wheel.read_bytes()))


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def frames(channels):
    """Channels, lists of equal length, as the rows of a tensor."""
    return "F32", [len(channels[0]), len(channels)], array("f", [value for row in zip(*channels) for value in row]).tobytes()


def scale_of(values):
    return statistics.fmean(values), statistics.pstdev(values)


def standardized(values, scale):
    mean, deviation = scale
    return [(value - mean) / deviation for value in values]


def read_motions(text):
    """A list of (six channels, class)."""
    lines = text.split("@data", 1)[1].strip().splitlines()
    cases = [line.strip().split(":") for line in lines]
    return [([[float(value) for value in channel.split(",")] for channel in case[:-1]], CLASSES.index(case[-1])) for case in cases]


def fetch_motions(wheel):
    folder = "aeon/datasets/data/BasicMotions/BasicMotions_"
    parts = {part: read_motions(wheel.read(f"{folder}{part.upper()}.ts").decode()) for part in ("train", "test")}
    scales = [scale_of([value for channels, _ in parts["train"] for value in channels[index]]) for index in range(6)]
    for part, cases in parts.items():
        for number, (channels, label) in enumerate(cases):
            scaled = [standardized(channel, scale) for channel, scale in zip(channels, scales)]
            write_safetensors(ROOT / f"data/motions/{part}/{number:02d}.safetensors",
                              {"accelerometer": frames(scaled[:3]), "gyroscope": frames(scaled[3:]),
                               "label": ("I64", [], struct.pack("<q", label))})


def fetch_daphnet(wheel):
    text = wheel.read("aeon/datasets/data/Daphnet_S06R02E0/S06R02E0.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    tensors = {}
    for place in ("ankle", "leg", "trunk"):
        channels = []
        for axis in ("horiz_fwd", "vert", "horiz_lateral"):
            values = [float(row[f"{place}_{axis}"]) for row in rows]
            channels.append(standardized(values, scale_of(values[:len(values) * 8 // 10])))
        tensors[place] = frames(channels)
    write_safetensors(ROOT / "data/daphnet/S06R02E0.safetensors", tensors)


def main():
    wheel = download()
    fetch_motions(wheel)
    fetch_daphnet(wheel)
    for folder in ("motions/train", "motions/test", "daphnet"):
        print(f"data/{folder}: {len(list((ROOT / 'data' / folder).glob('*.safetensors')))} recordings")


if __name__ == "__main__":
    main()
