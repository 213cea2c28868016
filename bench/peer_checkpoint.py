#!/usr/bin/env python3
"""torch.distributed.checkpoint beside ours. What it does with a checkpoint in which one bit has flipped, of 1,000 that are drawn at random over all
its files: the counterpart of tests/distributed/checkpoint_damage_test.cpp. And for how long a training of 1.06 GB waits for a save and for an
asynchronous one: the counterpart of bench/checkpoint.py.

    PYTHONPATH=third_party/libtorch-cuda bench/peer_checkpoint.py [--flips 1000]      # needs numpy
"""

import argparse
import io
import random
import contextlib
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

warnings.filterwarnings("ignore")


def state(fill):
    generator = torch.Generator().manual_seed(1)
    shapes = {"embedding.weight": (128, 16), "layer.weight": (64, 16), "layer.bias": (64,), "optimizer.average": (64, 16)}
    return {name: torch.randn(shape, generator=generator) if fill else torch.zeros(shape) for name, shape in shapes.items()}


def outcome(folder, expected):
    loaded = state(fill=False)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            dcp.load(loaded, checkpoint_id=folder, no_dist=True)
    except BaseException:  # DCP's own is none of Exception's
        return "refused"
    return "loaded as saved" if all(torch.equal(loaded[name], expected[name]) for name in expected) else "loaded with other values, silently"


def waits():
    """Seconds of a save, and seconds until an asynchronous one lets go on."""
    values = {f"layer.{number}": torch.randn(1_062_000_000 // 4 // 21) for number in range(21)}
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        dcp.save(values, storage_writer=dcp.FileSystemWriter(Path(folder) / "one", sync_files=True))
        saved, begin = time.time() - begin, time.time()
        under_way = dcp.async_save(values, storage_writer=dcp.FileSystemWriter(Path(folder) / "two", sync_files=True))
        let_go = time.time() - begin
        under_way.result()
    return saved, let_go


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    options = parser.parse_args()
    chance = random.Random(5)
    with tempfile.TemporaryDirectory() as folder:
        saved = state(fill=True)
        dcp.save(saved, checkpoint_id=folder, no_dist=True)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        sizes = [path.stat().st_size for path in files]
        counts = {}
        for _ in range(options.flips):
            path = chance.choices(files, sizes)[0]
            whole = path.read_bytes()
            place = chance.randrange(len(whole))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1:])
            result = outcome(folder, saved)
            counts[result] = counts.get(result, 0) + 1
            path.write_bytes(whole)
        print(f"torch.distributed.checkpoint of PyTorch {torch.__version__}, {options.flips} flips over {', '.join(path.name for path in files)}: " +
              ", ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    saved, let_go = waits()
    print(f"1.06 GB: a save takes {saved:.2f} s; an asynchronous one lets go on after {let_go:.2f} s, {let_go / saved:.2f} of it")


if __name__ == "__main__":
    main()
