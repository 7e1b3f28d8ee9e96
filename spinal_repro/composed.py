"""Composed configurations of the published cells, remembered from one command to the next.

Composing one takes Hydra some 0.15 s, all of them half a minute. What was composed is kept in the
user's cache folder under a digest of every YAML file and of the schema, so that it can never be
stale; a folder that cannot be written only costs the time.
"""

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from spinal_repro import config, schema
from spinal_repro.errors import UserError
from spinal_repro.files import read_json, write_json


def composed_cell(name: str) -> dict[str, Any]:
    """`Config.to_dict` of a cell as it is published, as JSON and without places of this machine.

    Raises:
        UserError: where it does not compose.
    """
    path = _folder() / f"{name.replace('/', '--')}.json"
    kept = _kept(path)
    if kept is not None:
        return kept
    composed = config.compose([f"paper={name}"]).portable()
    found = dict(json.loads(json.dumps(composed.to_dict())))  # as records have it: keys are text
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"sum": _sum(found), "config": found})
    except OSError:
        pass
    return found


def _kept(path: Path) -> dict[str, Any] | None:
    """What was remembered, if it is what was written."""
    try:
        stored = read_json(path)
        return dict(stored["config"]) if stored["sum"] == _sum(stored["config"]) else None
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _sum(config: Any) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@functools.cache
def _folder() -> Path:
    """The folder for the configurations as they are now."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # this user has no home
        cache = Path(os.devnull)  # in which nothing can be written
    digest = hashlib.sha256()
    for module in (config, schema):
        digest.update(Path(str(module.__file__)).read_bytes())
    for path in sorted(config.config_dir().rglob("*.yaml")):
        name = path.relative_to(config.config_dir()).as_posix()
        if not name.startswith("claims/"):  # claims are composed into nothing
            digest.update(name.encode() + path.read_bytes())
    return cache / "spinal_repro" / digest.hexdigest()[:16]
