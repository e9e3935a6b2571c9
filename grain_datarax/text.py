"""Files of JSON and YAML, told apart by their names."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from grain_datarax.wording import shown

_FORMS = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}


def write(description: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a mapping of JSON's types.

    Raises:
      TypeError: If `path` is no path.
      ValueError: If the file's name ends in none of `.json`, `.yaml` and `.yml`.
      ImportError: If it is YAML, and PyYAML is not installed.
    """
    form, file = _form(path), pathlib.Path(path)
    if form == "json":
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    else:
        text = _yaml().safe_dump(json.loads(json.dumps(description)), sort_keys=False)
    file.write_text(text, encoding="utf-8")


def read(path: str | os.PathLike[str]) -> Any:
    """Reads what `write` wrote, or what people wrote by hand.

    Raises:
      TypeError: If `path` is no path.
      ValueError: If the file's name ends in none of `.json`, `.yaml` and `.yml`, or it is not of that form.
      OSError: If it can't be read.
      ImportError: If it is YAML, and PyYAML is not installed.
    """
    form, file = _form(path), pathlib.Path(path)
    parse = json.loads if form == "json" else _yaml().safe_load
    try:
        return parse(file.read_text(encoding="utf-8"))
    except OSError:
        raise
    except Exception as error:  # PyYAML raises errors of any kind on damaged files
        raise ValueError(f"`path` must be a file of {form.upper()}: got {file}, {error!s:.200}. Correct it.") from error


def _form(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be a path: got {shown(path)}. Pass the name of a file.")
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in _FORMS:
        raise ValueError(f"`path` must end in one of {list(_FORMS)}: got {str(path)!r}. Rename it.")
    return _FORMS[suffix]


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            "`path` of YAML must be read by PyYAML: got none. Run pip install 'grain-datarax[yaml]', or use JSON."
        ) from error
    return yaml
