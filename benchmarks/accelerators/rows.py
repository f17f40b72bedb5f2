"""Compiles for one platform, in a process with its environment: `rows PLATFORM ONLY QUICK`.

Prints a line of JSON for each program.
"""

import json
import sys
import warnings

import jax

from benchmarks.accelerators import compilers, hlo, programs
from benchmarks.timing import Row


def main(platform: str, only: str, quick: bool) -> None:
    """Prints the rows."""
    compile_function = compilers.load_compiler(platform)

    def read(program: programs.Program) -> Row:
        arguments = jax.eval_shape(program.make)
        compiled = compile_function(program.step, *arguments)
        memory = compiled.memory_analysis().temp_size_in_bytes
        return hlo.read_cost(compiled.as_text())._asdict() | {"temporaries": memory}

    for table in programs.tables():
        unit = None
        for program in table.programs:
            if only not in f"{table.name}: {program.name}" or (quick and not program.quick):
                continue
            unit = unit or read(table.unit)["cycles"]
            row = {"table": table.name, "name": program.name, "platform": platform}
            row |= {"in_units": table.in_units, "unit": unit, **read(program), **program.facts()}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of a host without devices
    main(sys.argv[1], sys.argv[2], sys.argv[3] == "True")
