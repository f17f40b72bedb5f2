"""Reads the text of a compiled program: what a device launches, waits for and repeats."""

import re
from typing import NamedTuple

# Launch nothing; "-done" is the end of what "-start" launched.
_FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|opt-barrier|after-all"
    r"|partition-id|replica-id|[\w-]+-done"
)
_CALLS = ("call", "async-start")


class Cost(NamedTuple):
    """What one call of a program does.

    Attributes:
      kernels: launches on a GPU, instructions on a TPU. A loop's count once for each step; of a
        conditional, itself and the costliest branch.
      cycles: XLA's own estimate, which it makes for TPUs only, counted likewise.
      conditionals: a GPU program waits for the host at each.
      loops: the steps of each loop, None if the program decides while it runs.
    """

    kernels: int
    cycles: int
    conditionals: int
    loops: list[int | None]


def read_cost(text: str) -> Cost:
    """Returns the cost of a program, given `compiled.as_text()`."""
    computations = _computations(text)
    conditionals, loops = 0, []

    def walk(name: str) -> tuple[int, int]:
        nonlocal conditionals
        kernels = cycles = 0
        for opcode, line in computations[name]:
            if _FREE.fullmatch(opcode):
                continue
            inside = (0, 0)
            if opcode == "conditional":
                conditionals += 1
                branches = [walk(branch) for branch in _branches(line)]
                inside = tuple(map(max, zip(*branches, strict=True)))
            elif opcode == "while":
                count = re.search(r"known_trip_count\W+n\W+(\d+)", line)
                steps = int(count[1]) if count else None
                loops.append(steps)
                inside = tuple((steps or 1) * part for part in walk(_called("body", line)))
            elif opcode in _CALLS:
                inside = walk(_called("to_apply|calls", line))
            own = 0 if opcode in (*_CALLS, "while") else 1
            estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
            kernels += own + inside[0]
            cycles += inside[1] + (int(estimate[1]) if estimate else 0)
        return kernels, cycles

    kernels, cycles = walk("ENTRY")
    return Cost(kernels, cycles, conditionals, loops)


def _computations(text: str) -> dict[str, list[tuple[str, str]]]:
    """Returns the (opcode, line) of each instruction, by computation."""
    computations: dict[str, list[tuple[str, str]]] = {}
    instructions: list[tuple[str, str]] = []
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line)
        if header:
            instructions = computations["ENTRY" if header[1] else header[2]] = []
        # After the type, in which no lowercase word is followed by a parenthesis.
        elif opcode := re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(", line):
            instructions.append((opcode[1], line))
    return computations


def _called(attribute: str, line: str) -> str:
    return re.search(rf"(?:{attribute})=%?([\w.\-]+)", line)[1]


def _branches(line: str) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", line)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)
