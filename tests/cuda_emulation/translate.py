#!/usr/bin/env python3
"""Makes C++ of the project's CUDA sources, for tests/cuda_emulation/emulation.h.

translate.py SOURCE_FOLDER OUT_FOLDER FILE...   each FILE (.cu or .h, relative to SOURCE_FOLDER) to the same place below OUT_FOLDER;
                                                .cu becomes .cu.cpp

A launch `kernel<...><<<grid, block, shared, stream>>>(arguments)` becomes a call of emulation::launch, and the namespace
longnet::cuda becomes longnet::cuda_emulated, so that a program may hold both. Nothing else is changed.
"""
import pathlib
import sys


def split_at_commas(text):
    parts, depth, begin = [], 0, 0
    for position, character in enumerate(text):
        depth += {"(": 1, "<": 1, "{": 1, ")": -1, ">": -1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[begin:position].strip())
            begin = position + 1
    return parts + [text[begin:].strip()]


def end_of_parentheses(text, begin):
    depth = 0
    for position in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    raise SystemExit("translate: a launch without an end")


def translated(text):
    while "<<<" in text:
        opens = text.index("<<<")
        closes = text.index(">>>", opens)
        begin = max(text.rfind(mark, 0, opens) for mark in ";{}") + 1
        arguments = text.index("(", closes)
        end = end_of_parentheses(text, arguments)
        grid, block, shared, _ = split_at_commas(text[opens + 3:closes])
        if shared != "0":
            raise SystemExit("translate: dynamic shared memory is not emulated")
        call = f" ::emulation::launch({grid}, {block}, [&] {{ {text[begin:opens].strip()}{text[arguments:end]}; }})"
        text = text[:begin] + call + text[end:]
    return text.replace("namespace longnet::cuda", "namespace longnet::cuda_emulated")


def main():
    source, out = map(pathlib.Path, sys.argv[1:3])
    for name in sys.argv[3:]:
        path = out / (name + ".cpp" if name.endswith(".cu") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#include "tests/cuda_emulation/emulation.h"\n' + translated((source / name).read_text()))


main()
