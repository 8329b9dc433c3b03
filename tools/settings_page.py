"""Writes docs/settings.md from the settings themselves.

python tools/settings_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from secondglance.config import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Every setting, with its default. Say it in a file (`--config FILE`, or `config.toml` in your own
configuration folder):

```toml
[recall]
model = "/models/my-clip"

[search]
recall = 50
```

or as `--set recall.model=/models/my-clip`, or as `SECONDGLANCE_RECALL__MODEL=/models/my-clip`.
Later ones win: defaults, preset, file, environment, flags. Unknown keys are errors.
"""


def page() -> str:
    """The whole page; written by `tools/settings_page.py`."""
    parts = [HEAD]
    for name, section in Settings.model_fields.items():
        model = section.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        parts.append(f"## {name}\n\n{(model.__doc__ or '').strip()}\n")
        rows = [_row(key, field) for key, field in model.model_fields.items()]
        parts.append("\n".join(["| key | default | what |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _row(key: str, field: FieldInfo) -> str:
    default = "none" if field.default is None else f"`{json.dumps(field.default)}`"
    words = [field.description or ""]
    if get_origin(field.annotation) is Literal:
        words.append("one of " + ", ".join(f"`{choice}`" for choice in get_args(field.annotation)))
    return f"| `{key}` | {default} | {'; '.join(filter(None, words))} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
