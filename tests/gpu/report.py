#!/usr/bin/env python3
"""What tests/gpu/run.sh compares and prints.

report.py tokens FILE COUNT     a file of random tokens below 50,257
report.py compare FOLDER        the losses of the quickstart on CPU and GPU; fails where they differ
report.py table FOLDER          the table of all that was run and measured
"""
import array
import collections
import json
import pathlib
import random
import re
import struct
import subprocess
import sys

# configs/paper-125m.yaml
LAYERS, WIDTH, HEADS, HEAD_WIDTH, FEED_FORWARD, VOCABULARY = 12, 768, 12, 64, 3072, 50257
SEGMENTS, RATES = (2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12)
# Which part of a step a kernel belongs to, by what its name says. The first that matches counts.
PHASES = (("joining branches, forward and backward", "join_parts"), ("attention kernels", "flash|fmha|sdpa|cudnn"),
          ("softmax and cross-entropy", "row_losses"), ("rotary positions", "longnet.*turn"), ("dropout", "longnet.*drop"),
          ("matrix products", "gemm|nvjet|cutlass|xmma|splitK|cublas"), ("LayerNorm", "layer_norm|LayerNorm|GammaBeta|normalize"),
          ("GELU", "[Gg]elu|GELU"), ("copies and casts", "copy|Memcpy|Memset|FillFunctor|Cat"), ("additions", "CUDAFunctor_add|AddFunctor"),
          ("embedding", "[Ee]mbedding|index|sort|Radix"), ("everything else", ""))
PEAK = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}   # dense bfloat16, from the makers' data sheets


def score_pairs(length):
    """(query, key) pairs of one layer of the paper's mixture, causal, over all heads."""
    pairs = 0
    for segment, rate in zip(SEGMENTS, RATES):
        for begin in range(0, length, segment):
            size = min(segment, length - begin)
            for head in range(HEADS):
                rows = max(0, -(-(size - head % rate) // rate))
                pairs += rows * (rows + 1) // 2
    return pairs


def model_flops(length):
    """Of one training step of one sequence: 6 a weight and token, 14 D a pair. Recomputation does not count."""
    weights = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * FEED_FORWARD) + VOCABULARY * WIDTH
    return 6 * weights * length + 14 * HEAD_WIDTH * score_pairs(length) * LAYERS


def tokens(path, count):
    random.seed(1)
    header = struct.pack("<256i", 20240520, 1, count, *([0] * 253))
    values = array.array("H", (random.randrange(VOCABULARY) for _ in range(count)))
    pathlib.Path(path).write_bytes(header + values.tobytes())


def metrics(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def compare(folder):
    cpu = metrics(folder / "run-cpu")
    assert len(cpu) == 30, "the CPU's run is not complete"
    for name in ("run-gpu", "run-shared"):
        other = metrics(folder / name)
        assert len(other) == 30, f"{name} is not complete"
        for a, b in zip(cpu, other):
            difference = abs(a["loss"] - b["loss"])
            print(f"{name} step {a['step']}: {a['loss']:.6f} {b['loss']:.6f} {difference:.1e}")
            assert difference < (1e-4 if a["step"] <= 5 else 5e-3), "the losses differ"


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def table_of_measurements(folder):
    log = folder / "bench.attention.log"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")] if log.exists() else []
    found = {(line["name"], line["length"]): line for line in lines if line["what"] == "attention"}
    dense = found.get(("dense", 32768))
    row("attention", "N", "forward ms", "both ms", "forward TFLOP/s", "both TFLOP/s", "rate : dense, forward", "both")
    row(*["---"] * 8)
    for (name, length), line in found.items():
        ratio = [f"{line[key] / dense[key]:.2f}" if dense else "not run" for key in ("forward_tflops", "both_tflops")]
        row(name, length, line["forward_ms"], line["both_ms"], line["forward_tflops"], line["both_tflops"], *ratio)
    short, long = found.get(("dilated", 32768)), found.get(("dilated", 1048576))
    if dense and short:
        print(f"\ntimes faster than dense at 32,768: forward {dense['forward_ms'] / short['forward_ms']:.2f}, "
              f"both {dense['both_ms'] / short['both_ms']:.2f}")
    if short and long:
        print(f"time a token at 1,048,576 over 32,768: forward {long['forward_ms'] / short['forward_ms'] / 32:.3f}, "
              f"both {long['both_ms'] / short['both_ms'] / 32:.3f}")
    print()
    row("kernel", "rows", "D", "causal", "forward ms", "backward ms")
    row(*["---"] * 6)
    for line in lines:
        if line["what"] == "kernel":
            row(line["name"], line["rows"], line["width"], line["causal"], line["forward_ms"], line["backward_ms"])


def table_of_training(folder, card):
    steps = metrics(folder / "run-paper")[2:]
    print()
    if not steps:
        print("training step of paper-125m: not run")
    else:
        length = 32768
        seconds = sorted(step["seconds"] for step in steps)[len(steps) // 2]
        rate = 2 * length / seconds
        flops = rate / length * model_flops(length)
        peak = next((value for name, value in PEAK.items() if name in card), None)
        print(f"training step of paper-125m, N = 32,768, bf16, no recomputation: {rate:,.0f} tokens/s, "
              f"{flops / 1e12:.0f} TFLOP/s of the model, MFU {f'{flops / peak:.1%}' if peak else 'unknown'}, "
              f"peak {max(step['peak_memory_bytes'] for step in steps) / 2**30:.1f} GiB")
    peer = folder / "bench.peer.log"
    if peer.exists():
        print("the same sizes in PyTorch eager with dense attention:", *peer.read_text().strip().splitlines()[-1:])
    lengths = sorted(int(path.name.split("-")[1]) for path in folder.glob("run-[0-9]*") if len(metrics(path)) == 2)
    if lengths:
        last = metrics(folder / f"run-{lengths[-1]}")[-1]
        print(f"largest N tried that fits, with recomputation: {lengths[-1]:,} "
              f"({last['seconds']:.2f} s a step, {last['peak_memory_bytes'] / 2**30:.1f} GiB)")
    else:
        print("largest N that fits: not run")


def table_of_phases(folder):
    """Time of every kernel of one step, from the program's own trace. Kernels that ran beside each other count whole, each."""
    path = folder / "run-profile/trace-step-4.json"
    print()
    if not path.exists():
        print("phases of a step: not run")
        return
    events = [event for event in json.loads(path.read_text())["traceEvents"]
              if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    phases, names = collections.defaultdict(lambda: [0, 0.0]), collections.defaultdict(lambda: [0, 0.0])
    for event in events:
        phase = next(title for title, pattern in PHASES if re.search(pattern, event["name"]))
        for sums in (phases[phase], names[f"{phase}: {event['name'][:110]}"]):
            sums[0] += 1
            sums[1] += event["dur"] / 1000
    for title, rows in (("phase of a step", phases), ("kernel", names)):
        row(title, "calls", "ms")
        row(*["---"] * 3)
        for name, (calls, time) in sorted(rows.items(), key=lambda item: -item[1][1])[:40]:
            row(name.replace("|", "/"), calls, f"{time:.3f}")
        print()
    busy, end = 0.0, 0.0
    for event in sorted(events, key=lambda event: event["ts"]):
        begin = max(end, event["ts"])
        end = max(end, event["ts"] + event["dur"])
        busy += max(0.0, end - begin)
    span = end - min(event["ts"] for event in events)
    print(f"{len(events)} calls, {sum(value[1] for value in phases.values()):.1f} ms in all; the GPU is busy {busy / 1000:.1f} ms "
          f"of {span / 1000:.1f}")


def table(folder):
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        card = "no GPU"
    print(f"\nGPU: {card}\n")
    row("test", "result", "seconds")
    row(*["---"] * 3)
    for line in (folder / "steps.tsv").read_text().splitlines():
        row(*line.split("\t"))
    if (folder / "bench.attention.log").exists():
        print()
        table_of_measurements(folder)
        table_of_training(folder, card)
        table_of_phases(folder)


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "tokens":
        tokens(arguments[0], int(arguments[1]))
    elif command == "compare":
        compare(pathlib.Path(arguments[0]))
    else:
        table(pathlib.Path(arguments[0]))
