"""A setting that no code reads is a promise that is not kept."""

from __future__ import annotations

import ast

from tests.architecture.source_tree import PACKAGE, source_files, tree_of

CONFIG = PACKAGE / "config"


def settings_fields() -> set[str]:
    nodes = [node for path in sorted(CONFIG.glob("*.py")) for node in ast.walk(tree_of(path))]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")]
    fields = [node.target for each in classes for node in each.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in fields if isinstance(target, ast.Name)} - {"model_config"}


# What Settings itself reads, it turns into a property that other code reads: `slots`, `lease_us`.
def test_every_setting_is_read_by_some_code() -> None:
    attributes = [
        node for path in source_files() for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)
    ]

    read = {node.attr for node in attributes}
    unread = sorted(settings_fields() - read)

    assert settings_fields(), "found no fields: has Settings moved?"
    assert not unread, f"settings that nothing reads, wire them up or remove them: {unread}"
