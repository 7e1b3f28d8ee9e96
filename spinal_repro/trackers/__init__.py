"""Trackers: what a run tells to the tools in which people watch and compare their runs.

Off unless ``tracker=`` chooses one. Trackers are told what a run writes down anyway; nothing is
ever read from them, and one that fails never stops a run.
"""

from spinal_repro.trackers.base import TRACKERS, About, Tracker

__all__ = ["TRACKERS", "About", "Tracker"]
