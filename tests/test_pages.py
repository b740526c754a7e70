"""HTML pages."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from nnunetv2_retina.pages import html_page, picture, table


def test_page_escapes_text_and_embeds_pictures(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "dot.png", np.zeros((2, 2), np.uint8))
    page = html_page("a < b", [table(["case"], [["<c>"]]), picture(tmp_path / "dot.png", 'a "dot"')])
    assert "a &lt; b" in page and "<td>&lt;c&gt;</td>" in page
    assert 'src="data:image/png;base64,' in page and str(tmp_path) not in page
