"""The identity of a configuration: a hash of the settings that decide a result."""

import dataclasses
import hashlib
import json
from typing import Any

# Names, folders and machine settings, which change no bit of a result.
NOT_IN_IDENTITY = {
    "seed", "runs", "cell", "tracker", "data.root", "data.download", "data.table", "data.file",
    "dataset.title", "dataset.file", "recipe.name", "recipe.published_epochs", "protocol.name",
    "runtime.threads", "runtime.jobs", "runtime.time_limit", "runtime.progress",
    "runtime.save_every", "runtime.debug",
}  # fmt: skip


def identity_of(config: Any) -> str:
    """Hash (eight hex digits) the settings of a `Config` that have not their default."""
    text = json.dumps(_set_values(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _set_values(config: Any, prefix: str = "") -> dict[str, Any]:
    """Collect the fields that differ from their defaults and belong to the identity."""
    found = {}
    for entry in dataclasses.fields(config):
        key, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            value = _set_values(value, f"{key}.")
        made = entry.default_factory
        default = entry.default if made is dataclasses.MISSING else made()
        if key not in NOT_IN_IDENTITY and value != default and value != {}:
            found[entry.name] = value
    return found
