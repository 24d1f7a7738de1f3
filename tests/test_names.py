"""A class's name means one thing in the whole house."""

import ast
from collections import defaultdict
from pathlib import Path

import wingspan

PACKAGE = Path(wingspan.__file__).parent


def test_no_class_name_is_defined_twice():
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert len(defined) > 300
    assert {name: places for name, places in defined.items() if len(places) > 1} == {}
