#!/usr/bin/env python3
"""What a training step of configs/paper-125m.yaml is compared with: the same sizes in plain PyTorch on the same GPU.

    python3 bench/eager_step.py [--batch 1] [--length 32768] [--steps 5]

bfloat16 by autocast, dense causal attention by scaled_dot_product_attention, fused AdamW, clipping, tied embeddings, rotary
positions, sub-layer norms, all logits at once: what a PyTorch user writes without longnet. Prints one JSON object.
"""
import argparse
import json
import statistics

import torch
from torch import nn
from torch.nn import functional

LAYERS, WIDTH, HEADS, FEED_FORWARD, VOCABULARY = 12, 768, 12, 3072, 50257


def turn(x, cosines, sines):
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack((first * cosines - second * sines, first * sines + second * cosines), -1).flatten(-2).type_as(x)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.before_attention, self.after_attention, self.before_feed_forward = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.inside_feed_forward = nn.LayerNorm(FEED_FORWARD)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, FEED_FORWARD), nn.Linear(FEED_FORWARD, WIDTH)

    def attend(self, x, cosines, sines):
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)) for layer in (self.query, self.key, self.value))
        q, k = turn(q, cosines, sines), turn(k, cosines, sines)
        out = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.out(self.after_attention(out.transpose(1, 2).flatten(-2)))

    def forward(self, x, cosines, sines):
        x = x + self.attend(self.before_attention(x), cosines, sines)
        hidden = functional.gelu(self.up(self.before_feed_forward(x)))
        return x + self.down(self.inside_feed_forward(hidden))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, inputs, targets, cosines, sines):
        x = self.embedding(inputs)
        for layer in self.layers:
            x = layer(x, cosines, sines)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 1), ("length", 32768), ("steps", 5)):
        parser.add_argument("--" + name, type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = Decoder().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pairs = WIDTH // HEADS // 2
    angles = torch.arange(options.length)[:, None] * 10000.0 ** (-torch.arange(pairs) / pairs)
    cosines, sines = angles.cos()[None, :, None].cuda(), angles.sin()[None, :, None].cuda()
    tokens = torch.randint(VOCABULARY, (options.batch, options.length + 1), device="cuda")
    times = []
    for _ in range(options.steps + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(tokens[:, :-1], tokens[:, 1:], cosines, sines)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    print(json.dumps({"what": "eager", "length": options.length, "batch": options.batch,
                      "step_ms": round(statistics.median(times[2:]), 2),
                      "tokens_per_second": round(options.batch * options.length / statistics.median(times[2:]) * 1000),
                      "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)}))


if __name__ == "__main__":
    main()
