"""Code of the user's that a configuration names as `module:Name`, and what is said where it is not there."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import suggestion

_NAMED: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_PACKAGED: Final = "gym_anytrading:"  # data of a package, not code of the user's
_folders: set[str] = set()


def is_named(text: str) -> bool:
    """Tells whether a text names code, rather than a file, an address or packaged data."""
    return bool(_NAMED.fullmatch(text)) and not text.startswith(_PACKAGED)


def look_in(folder: Path) -> None:
    """Makes modules beside a configuration importable here; Ray's processes get what they need of them by value."""
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.insert(0, text)
    _folders.add(text)


def named(text: str, where: str) -> Any:
    """Returns what `module:Name` names.

    Args:
        text: as the configuration has it.
        where: the key it stands at, for errors.

    Raises:
        ConfigurationError: it is no such text, there is no such module, the module itself fails, or it has no such
            name; says which.
    """
    module_name, _, name = text.partition(":")
    if not _NAMED.fullmatch(text):
        raise ConfigurationError(f"{where} is {text!r}; `module:Name` is needed, such as my_package.envs:MyEnv")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"{where} is {text!r}: there is no module {error.name!r}. Install it, or put it beside the YAML file "
                "or into PYTHONPATH"
            ) from error
        raise ConfigurationError(f"{where} is {text!r}: {module_name} itself needs a module {error.name!r}") from error
    except Exception as error:
        raise ConfigurationError(
            f"{where} is {text!r}: importing {module_name} fails: {type(error).__name__}: {error}"
        ) from error
    _travels(module)
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigurationError(
            f"{where} is {text!r}: {module_name} ({module.__file__}) has no {name!r}{suggestion(name, public)}"
        )
    return getattr(module, name)


def _travels(module: Any) -> None:
    """Has a module that lies beside a configuration pickled by value: no other process finds it there."""
    file = getattr(module, "__file__", None)
    if file is None or not any(Path(file).resolve().is_relative_to(folder) for folder in _folders):
        return
    if "site-packages" not in file:
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
