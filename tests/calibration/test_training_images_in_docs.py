import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "training-images.md"


def test_the_code_in_the_page_draws_what_it_says():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    scene = names["scene"]
    assert scene.images.shape == (8, 256, 256)
    assert len(scene.table()["x_um"]) == len(scene.particles) > 0
