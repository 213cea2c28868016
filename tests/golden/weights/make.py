#!/usr/bin/env python3
"""Makes the files of torch.save in this folder, with torch 2.11: what tests/core/files/weights_file_test.cpp reads."""

import argparse
import collections
import os
from pathlib import Path

import torch

FOLDER = Path(__file__).parent


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/longnet-was-here",)


def main():
    rows = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = collections.OrderedDict(rows=rows, transposed=rows.t(), column=rows[:, 1], half=rows.half(), narrow=rows.bfloat16(),
                                    double=rows.double(), whole=rows.long(), number=torch.tensor(2.5), empty=torch.empty(0, 4),
                                    parameter=torch.nn.Parameter(rows + 1))
    torch.save(state, FOLDER / "state_dict.pt")
    torch.save(torch.nn.Linear(4, 3).state_dict(), FOLDER / "linear.pt")  # with _metadata
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=0.5, names=["a", None, True], size=2**40),
                "optimizer": optimizer.state_dict(), "evil": Hostile(), "model": {"weight": rows}}, FOLDER / "training.pt")
    torch.save(state, FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save([1, 2], FOLDER / "list.pt")


if __name__ == "__main__":
    main()
