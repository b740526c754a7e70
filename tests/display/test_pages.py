"""HTML pages."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from nnunetv2_retina.display.pages import contents, details, heading, html_page, notice, picture, table


def test_page_escapes_text_and_embeds_pictures(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "dot.png", np.zeros((2, 2), np.uint8))
    page = html_page("a < b", [table(["case"], [["<c>"]]), picture(tmp_path / "dot.png", 'a "dot"')])
    assert "a &lt; b" in page and "<td>&lt;c&gt;</td>" in page
    assert 'src="data:image/png;base64,' in page and str(tmp_path) not in page


def test_links_lead_to_their_headings() -> None:
    assert 'href="#worst-best-cases"' in contents(["Worst & best cases"])
    assert heading("Worst & best cases") == '<h2 id="worst-best-cases">Worst &amp; best cases</h2>'


def test_columns_of_numbers_are_aligned_at_the_right() -> None:
    rows = [["1", "2", "0.5", "undefined (no such voxel)"], ["2", "b", "1,000", "0.25"]]
    assert '<table class="n3 n4">' in table(["case", "class", "voxels", "IoU"], rows)
    assert "<table>" in table(["case"], [["1"]]) and "<th>" not in table([], [["a"]])


def test_blocks_escape_their_text() -> None:
    assert details("<a>", notice("<b>")) == (
        '<details><summary>&lt;a&gt;</summary>\n<p class="notice">&lt;b&gt;</p>\n</details>'
    )
