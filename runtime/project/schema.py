"""The JSON Schema of project files for editors, made from the reader's own fields."""

from __future__ import annotations

import json
import os
import sys

from ...supervisor.ground.layout import Layout
from ..kit import files
from .file import keys

NAME = "project.schema.json"
SHIPPED = os.path.join(sys.prefix, "share", "terok", NAME)
"""Where the wheel puts it."""


def document() -> dict[str, object]:
    """The schema (JSON Schema, draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "terok project file (.terok.yml)",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": doc, **kind.schema} for name, (kind, doc) in keys().items()},
        "not": {"required": ["image", "containerfile"]},
    }


def text() -> str:
    """The schema as a file."""
    return json.dumps(document(), indent=2) + "\n"


def uri(layout: Layout) -> str:
    """Where editors find the schema: the shipped file, or one that is written now when terok runs from its sources."""
    path = SHIPPED
    if not os.path.exists(path):
        files.make_dir(layout.data)
        path = layout.project_schema
        files.write(path, text(), mode=0o644)
    return f"file://{path}"
