"""Files of JSON and YAML, told apart by their names."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

_FORMS = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}


def write(description: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a mapping of JSON's types.

    Raises:
      ValueError: If the file's name ends in none of `.json`, `.yaml` and `.yml`.
      ImportError: If it is YAML, and PyYAML is not installed.
    """
    file = pathlib.Path(path)
    if _form(file) == "json":
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    else:
        text = _yaml().safe_dump(json.loads(json.dumps(description)), sort_keys=False)
    file.write_text(text, encoding="utf-8")


def read(path: str | os.PathLike[str]) -> Any:
    """Reads what `write` wrote, or what people wrote by hand.

    Raises:
      ValueError: If the file's name ends in none of `.json`, `.yaml` and `.yml`, or it is not of that form.
      ImportError: If it is YAML, and PyYAML is not installed.
    """
    file = pathlib.Path(path)
    form = _form(file)
    try:
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if form == "json" else _yaml().safe_load(text)
    except ValueError as error:
        raise ValueError(f"`path` must be a file of {form.upper()}: got {file}, {error}. Correct it.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        raise ValueError(f"`path` must be a file of YAML: got {file}, {error}. Correct it.") from error


def _form(path: pathlib.Path) -> str:
    if path.suffix.lower() not in _FORMS:
        raise ValueError(f"`path` must end in one of {list(_FORMS)}: got {str(path)!r}. Rename it.")
    return _FORMS[path.suffix.lower()]


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            "`path` of YAML must be read by PyYAML: got none. Run pip install 'grain-datarax[yaml]', or use JSON."
        ) from error
    return yaml
