"""`docs/map.md` names every room of the house."""

from pathlib import Path

import wingspan

PACKAGE = Path(wingspan.__file__).parent
REPOSITORY = Path(__file__).parents[1]


def test_every_package_is_on_the_map():
    text = (REPOSITORY / "docs" / "map.md").read_text()
    rooms = [folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()]
    assert len(rooms) > 10
    assert [room for room in rooms if f"`{room}/`" not in text] == []


def test_every_page_of_the_docs_is_linked_from_the_readme():
    text = (REPOSITORY / "README.md").read_text()
    pages = [f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md")]
    assert [page for page in pages if page not in text] == []
