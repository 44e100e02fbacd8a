"""The site of `docs/` can be made, every link in it leads somewhere, and it loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def test_the_site_is_made_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors, pages that are in no menu: all are errors. It can be read without internet."""
    done = subprocess.run(
        [Path(sys.executable).parent / "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path],
        cwd=_ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//", text), page
        assert not re.search(r"<link[^>]*rel=\"?stylesheet[^>]*href=\"?(?:https?:)?//", text), page


_PLACE = re.compile(
    r"`((?:worker|control|routes|error_pages|demo|diagnosis|sessions|settings|logs|mailbox)(?:/[\w/]+)?/?(?:\.py)?"
    r"|[\w/]+\.py|(?:tests|deploy|benchmarks|examples)/[\w/.-]+)`"
)
"""A file or a folder in a text; those of the package are written without their ending, too."""


def test_every_file_that_is_named_is_there() -> None:
    """In the tree, or in the package: a page that says where to look must not send people away."""
    package = _ROOT / "src" / "visa_jupyter_proxy"
    named = {
        (page.name, place)
        for page in (*(_ROOT / "docs").rglob("*.md"), _ROOT / "README.md")
        for place in _PLACE.findall(page.read_text())
    }
    assert len(named) > 50
    roots = (_ROOT, package, package.parent)
    assert set() == {
        (page, place)
        for page, place in named
        if not any((root / place).exists() or (root / f"{place}.py").exists() for root in roots)
    }


def test_the_readme_names_files_that_are_there() -> None:
    """Links of the README that lead into the tree."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (_ROOT / "README.md").read_text())
    assert len(links) > 8
    assert [] == [link for link in links if not (_ROOT / link).exists()]
