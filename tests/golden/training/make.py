#!/usr/bin/env python3
"""Makes the golden files of training in this folder: what three optimizer steps do to a decoder and to an encoder.

The oracle is PyTorch alone, in float64: every formula below is written from its publication with plain tensor
operations, and every gradient is autograd's. Nothing of longnet takes part, so agreement means that forward pass,
backward pass, sums over labels, clipping, schedule and optimizer of two independent programs are the same.

    OMP_NUM_THREADS=1 python3 tests/golden/training/make.py

needs torch (2.11 made the files here) and nothing else; it writes decoder.safetensors and encoder.safetensors beside
itself and prints losses and gradient norms. The files hold, in float64 unless said otherwise:

    tokens                              decoder: int64; the inputs are all but the last, the targets all but the first
    frames.0, values.0, frames.1, ...   encoder: (rows, channels) and the (outputs) to be predicted, of each example
    initial.NAME                        every parameter before the first step, in the order of the model
    after.1.NAME, after.2.NAME, ...     every parameter after that step
    losses, gradient_norms, learning_rates    one a step: mean over the labels; norm before clipping
    __metadata__: config                the sections model, optimizer and training of longnet's configuration

The encoder's k_proj.bias adds the same to all scores of a query, so that its exact gradient is 0. What AdamW makes of
rounding errors of 1e-17 there moves it by 1e-12 a step: no two programs agree on that, but they agree on all the rest
to about 1e-14.

Where the formulas come from:

    dilated attention            arXiv 2307.02486 (LongNet), sections 2.2 to 2.4
    layers: pre-norm, sub-LN     arXiv 2210.06423 (MAGNETO)
    layer normalization          arXiv 1607.06450
    GELU, the exact one          arXiv 1606.08415
    rotary positions             arXiv 2104.09864
    sinusoidal positions         arXiv 1706.03762, section 3.5; here all sines come before all cosines
    class token                  arXiv 2010.11929
    clipping of the norm         arXiv 1211.5063
    warm-up and cosine           arXiv 1706.03762, section 5.3 (linear rise), and arXiv 1608.03983 (cosine, one cycle)
    AdamW                        arXiv 1711.05101, as torch.optim.AdamW; only matrices decay
"""

import json
import math
import struct
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
STEPS = 3  # of the 5 that the schedule is made for: both of the warm-up and the first of the cosine
LAYER_NORM_EPSILON = 1e-5

DECODER = {
    "model": {"type": "decoder", "vocabulary": 23, "width": 16, "layers": 2, "heads": 4, "feed_forward": 24,
              "attention": {"segments": [8, 20, 64], "rates": [1, 2, 3], "head_offsets": "cyclic"},
              "positions": "rope", "dropout": 0, "tied_embeddings": False},
    "optimizer": {"type": "adamw", "learning_rate": 0.02, "betas": [0.85, 0.93], "epsilon": 1e-7, "weight_decay": 0.07,
                  "schedule": "cosine", "warmup_steps": 2, "final_learning_rate": 0.001, "clip_norm": 1.6},
    "training": {"steps": 5, "batch_size": 1, "micro_batch_size": 1, "precision": "fp64", "seed": 1},
}

ENCODER = {
    "model": {"type": "encoder", "channels": 6, "embed_frames": True, "field": "frames", "class_token": True,
              "width": 16, "layers": 2, "heads": 4, "feed_forward": 24,
              "attention": {"segments": [16, 200], "rates": [1, 3], "head_offsets": "cyclic"},
              "positions": "sinusoidal", "dropout": 0,
              "head": {"type": "regression", "outputs": 2, "per": "sequence", "field": "values", "pooling": "mean"}},
    "optimizer": {**DECODER["optimizer"], "clip_norm": 2.0},
    "training": {"steps": 5, "batch_size": 3, "micro_batch_size": 3, "precision": "fp64", "seed": 1},
}


# Attention: dense, without any reshaping into segments, so that it shares no indexing with an implementation.


def key_counts(length, heads, attention, causal):
    """(heads, length, length): in how many branches the query of a row sees the key of a column.

    Position p belongs to a branch of segment w and rate r for head j when (p mod w) mod r is j mod r. A query of a
    branch sees the branch's keys in its own segment, of a causal model only those that are not after it.
    """
    position = torch.arange(length)
    counts = torch.zeros(heads, length, length, dtype=torch.float64)
    for segment, rate in zip(attention["segments"], attention["rates"]):
        visible = (position[:, None] // segment) == (position[None, :] // segment)
        if causal:
            visible = visible & (position[None, :] <= position[:, None])
        for head in range(heads):
            chosen = (position % segment) % rate == head % rate
            counts[head] += visible & chosen[:, None] & chosen[None, :]
    return counts


def dilated_attention(q, k, v, attention, causal):
    """q, k, v (heads, length, head width) to the same.

    The branches are mixed in proportion to their softmax denominators, which is one softmax over the keys of all
    branches: a key that two branches reach counts twice. Gradients flow through the proportions as well. A branch of
    rate 1, which both models have, leaves no query without keys.
    """
    counts = key_counts(q.shape[1], q.shape[0], attention, causal)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    largest = scores.detach().masked_fill(counts == 0, -math.inf).amax(-1, keepdim=True)
    # An unseen key may score more than `largest`: it must not overflow before its count of 0 removes it.
    weights = counts * (scores - largest).masked_fill(counts == 0, 0).exp()
    return weights @ v / weights.sum(-1, keepdim=True)


# Layers. `parameters` is a dictionary of all parameters by name.


def linear(x, parameters, name):
    return x @ parameters[name + ".weight"].T + parameters[name + ".bias"]


def layer_norm(x, parameters, name):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    normal = centred / (variance + LAYER_NORM_EPSILON).sqrt()
    return normal * parameters[name + ".weight"] + parameters[name + ".bias"]


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def rotary(x):
    """x (heads, length, D): turns the pair of neighbouring channels (2j, 2j + 1) at position p by p 10000^(-2j / D)."""
    length, width = x.shape[1], x.shape[2]
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
    return torch.stack(turned, -1).flatten(-2)


def sinusoidal(length, width):
    """(length, width): the sines, then the cosines, of p 10000^(-k / (width / 2))."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


def self_attention(x, parameters, name, model, causal):
    """x (length, width), normalized, to what is added to the residual stream."""

    def project(part):
        return linear(x, parameters, f"{name}.{part}_proj").unflatten(-1, (model["heads"], -1)).transpose(0, 1)

    q, k, v = project("q"), project("k"), project("v")
    if model["positions"] == "rope":
        q, k = rotary(q), rotary(k)
    mixed = dilated_attention(q, k, v, model["attention"], causal).transpose(0, 1).flatten(-2)
    return linear(layer_norm(mixed, parameters, name + ".inner_attn_ln"), parameters, name + ".out_proj")


def feed_forward(x, parameters, name):
    hidden = gelu(linear(x, parameters, name + ".fc1"))
    return linear(layer_norm(hidden, parameters, name + ".ffn_layernorm"), parameters, name + ".fc2")


def transformer(x, parameters, model, causal):
    """x (length, width) through all layers and the last normalization."""
    if model["positions"] == "sinusoidal":
        x = x + sinusoidal(*x.shape)
    for layer in range(model["layers"]):
        name = f"layers.{layer}"
        normal = layer_norm(x, parameters, name + ".self_attn_layer_norm")
        x = x + self_attention(normal, parameters, name + ".self_attn", model, causal)
        normal = layer_norm(x, parameters, name + ".final_layer_norm")
        x = x + feed_forward(normal, parameters, name + ".ffn")
    return layer_norm(x, parameters, "layer_norm")


# Models: the sum of the losses of a batch, and how many labels it has.


def decoder_loss(parameters, model, data):
    tokens = data["tokens"]
    hidden = transformer(parameters["embed_tokens.weight"][tokens[:-1]], parameters, model, causal=True)
    logits = hidden @ parameters["output_projection.weight"].T
    of_targets = logits.gather(-1, tokens[1:, None]).squeeze(-1)
    return (logits.logsumexp(-1) - of_targets).sum(), len(tokens) - 1


def encoder_loss(parameters, model, data):
    """Every sequence on its own: a program that pads and masks a batch must come to the same."""
    total, examples = 0, 0
    while f"frames.{examples}" in data:
        embedded = linear(data[f"frames.{examples}"], parameters, "embed_frames")
        x = torch.cat([parameters["cls_token"][0], embedded])  # the class token is position 0
        hidden = transformer(x, parameters, model, causal=False)
        predicted = linear(hidden[1:].mean(0), parameters, "head")  # a mean of the frames' positions alone
        total = total + (predicted - data[f"values.{examples}"]).square().mean()
        examples += 1
    return total, examples


# Initial parameters, in the order and with the shapes of the model. No bias is 0 and no gain 1, so that each matters.


def normal(*shape, mean=0.0, deviation=1.0):
    return mean + deviation * torch.randn(*shape, dtype=torch.float64)


def add_linear(parameters, name, inputs, outputs):
    parameters[name + ".weight"] = normal(outputs, inputs, deviation=1 / math.sqrt(inputs))
    parameters[name + ".bias"] = normal(outputs, deviation=0.2)


def add_layer_norm(parameters, name, width):
    parameters[name + ".weight"] = normal(width, mean=1, deviation=0.2)
    parameters[name + ".bias"] = normal(width, deviation=0.2)


def add_transformer(parameters, model):
    width = model["width"]
    for layer in range(model["layers"]):
        name = f"layers.{layer}"
        add_layer_norm(parameters, name + ".self_attn_layer_norm", width)
        for part in ("q_proj", "k_proj", "v_proj"):
            add_linear(parameters, f"{name}.self_attn.{part}", width, width)
        add_layer_norm(parameters, name + ".self_attn.inner_attn_ln", width)
        add_linear(parameters, name + ".self_attn.out_proj", width, width)
        add_layer_norm(parameters, name + ".final_layer_norm", width)
        add_linear(parameters, name + ".ffn.fc1", width, model["feed_forward"])
        add_layer_norm(parameters, name + ".ffn.ffn_layernorm", model["feed_forward"])
        add_linear(parameters, name + ".ffn.fc2", model["feed_forward"], width)
    add_layer_norm(parameters, "layer_norm", width)


def decoder_parameters(model):
    parameters = {"embed_tokens.weight": normal(model["vocabulary"], model["width"], deviation=0.5)}
    add_transformer(parameters, model)
    parameters["output_projection.weight"] = normal(model["vocabulary"], model["width"], deviation=0.25)
    return parameters


def encoder_parameters(model):
    parameters = {}
    add_linear(parameters, "embed_frames", model["channels"], model["width"])
    parameters["cls_token"] = normal(1, 1, model["width"], deviation=0.5)
    add_transformer(parameters, model)
    add_linear(parameters, "head", model["width"], model["head"]["outputs"])
    return parameters


# Training.


def learning_rate(optimizer, step, steps):
    """Of step `step`, from 1: rises linearly to the peak with the last step of the warm-up, then half a cosine."""
    peak, end, warmup = optimizer["learning_rate"], optimizer["final_learning_rate"], optimizer["warmup_steps"]
    if step <= warmup:
        return peak * step / warmup
    return end + (peak - end) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def train(parameters, loss_of_batch, config, data):
    """Trains `parameters` in place, with the same data in every step. Returns what there is to compare, by name."""
    optimizer_config = config["optimizer"]
    for value in parameters.values():
        value.requires_grad_()
    matrices = [value for value in parameters.values() if value.dim() == 2]
    others = [value for value in parameters.values() if value.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": optimizer_config["weight_decay"]},
                                   {"params": others, "weight_decay": 0.0}],
                                  betas=tuple(optimizer_config["betas"]), eps=optimizer_config["epsilon"],
                                  foreach=False, fused=False)  # the plain one, of separate operations
    losses, norms, rates, snapshots = [], [], [], {}
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        total, labels = loss_of_batch(parameters, config["model"], data)
        loss = total / labels
        loss.backward()
        gradients = [value.grad for value in parameters.values()]
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
        # Not torch.nn.utils.clip_grad_norm_: it adds 1e-6 to the norm.
        for gradient in gradients:
            gradient.mul_(min(1.0, optimizer_config["clip_norm"] / norm))
        rate = learning_rate(optimizer_config, step, config["training"]["steps"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm)
        rates.append(rate)
        snapshots.update({f"after.{step}.{name}": value.detach().clone() for name, value in parameters.items()})
    numbers = {"losses": losses, "gradient_norms": norms, "learning_rates": rates}
    return {**{name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}, **snapshots}


# Files.


def flow(value):
    """YAML's flow style: JSON without the quotes of strings, all of which are plain words here."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def config_text(config):
    return "".join(f"{section}: {flow(keys)}\n" for section, keys in config.items())


def write_safetensors(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        dtype, letter = {torch.float64: ("F64", "d"), torch.int64: ("I64", "q")}[tensor.dtype]
        values = struct.pack(f"<{tensor.numel()}{letter}", *tensor.flatten().tolist())
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants aligned tensors
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def make(name, config, parameters, loss_of_batch, data):
    initial = {f"initial.{parameter}": value.clone() for parameter, value in parameters.items()}
    results = train(parameters, loss_of_batch, config, data)
    path = FOLDER / f"{name}.safetensors"
    write_safetensors(path, {**data, **initial, **results}, {"config": config_text(config)})
    print(f"{path.name}: {path.stat().st_size} bytes, clip_norm {config['optimizer']['clip_norm']}")
    for number in ("losses", "gradient_norms", "learning_rates"):
        print(f"  {number}: {results[number].tolist()}")


def main():
    torch.manual_seed(2307)
    parameters = decoder_parameters(DECODER["model"])
    data = {"tokens": torch.randint(0, DECODER["model"]["vocabulary"], (47,))}
    make("decoder", DECODER, parameters, decoder_loss, data)

    torch.manual_seed(2486)
    model = ENCODER["model"]
    parameters = encoder_parameters(model)
    data = {}
    for example, rows in enumerate((37, 50, 29)):
        data[f"frames.{example}"] = normal(rows, model["channels"])
        data[f"values.{example}"] = normal(model["head"]["outputs"])
    make("encoder", ENCODER, parameters, encoder_loss, data)


if __name__ == "__main__":
    main()
