"""What the README says is run."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_python_block_of_the_readme_runs(number):
    # A block may go on from those before it, as a reader would.
    scope = {"__name__": f"readme_{number}"}
    for block in BLOCKS[: number + 1]:
        exec(compile(block, f"README.md, block {number}", "exec"), scope)


def test_the_readme_has_blocks():
    assert len(BLOCKS) >= 4


def test_the_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (pathlib.Path(__file__).parents[1] / picture).is_file(), picture
