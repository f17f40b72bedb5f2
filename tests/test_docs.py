"""What the README says is run."""

import pathlib
import re

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_python_block_of_the_readme_runs():
    # In one scope: a block may go on from those before it, as a reader would.
    scope = {"__name__": "readme"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README.md, block {number}", "exec"), scope)


def test_the_readme_has_blocks():
    assert len(BLOCKS) >= 4


def test_the_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (pathlib.Path(__file__).parents[1] / picture).is_file(), picture
