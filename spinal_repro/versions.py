"""Schema versions of what is stored, and how older ones become today's.

A change that older files do not survive raises the version and adds a function here that turns the
version before it into it. A key with a default is no such change: files without it mean the
default. What a newer program wrote is refused, because nobody here knows what it means.
"""

from collections.abc import Callable, Mapping
from typing import Any

from spinal_repro.errors import UserError

RECORD_VERSION = 1
CONFIG_VERSION = 1  # of config.yaml; files written before there was a version have this one
KEY = "schema_version"

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
RECORDS: dict[int, Upgrade] = {}  # version to what makes the next one of it
CONFIGS: dict[int, Upgrade] = {}


def upgraded_record(record: Any, what: str) -> dict[str, Any]:
    """A record of today's schema version.

    Args:
        record: As read.
        what: What it is called in messages.

    Raises:
        UserError: where it is no record, too new, or so old that nothing upgrades it.
    """
    version = record.get(KEY) if isinstance(record, Mapping) else None
    return {**_upgraded(record, version, RECORD_VERSION, RECORDS, what), KEY: RECORD_VERSION}


def upgraded_config(config: Any, what: str) -> dict[str, Any]:
    """A stored configuration of today's schema version, without the version.

    Args:
        config: As read.
        what: What it is called in messages.

    Raises:
        UserError: as `upgraded_record`.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{what} must be groups of settings, got {type(config).__name__}")
    version = config.get(KEY, 1)
    plain = {key: value for key, value in config.items() if key != KEY}
    return _upgraded(plain, version, CONFIG_VERSION, CONFIGS, what)


def _upgraded(
    stored: Any, version: Any, today: int, upgrades: Mapping[int, Upgrade], what: str
) -> dict[str, Any]:
    if type(version) is not int:
        raise UserError(f"{what} has schema version {version!r}, expected {today}")
    if version > today:
        raise UserError(
            f"{what} has schema version {version}, expected {today}: a newer spinal_repro wrote "
            f"it; read it with that one, or upgrade this one"
        )
    found = dict(stored)
    while version < today:
        if version not in upgrades:
            raise UserError(
                f"{what} has schema version {version}, expected {today}: it is older than "
                f"anything that can be upgraded; read it with the spinal_repro that wrote it"
            )
        found = upgrades[version](found)
        version += 1
    return found
