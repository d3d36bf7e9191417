"""Tracking of instances through a video: ByteTrack, and the order in depth for instances that others hide."""

from bcnet.tracking.tracker import CONTINUING_SCORE, InstanceTracker

__all__ = ["CONTINUING_SCORE", "InstanceTracker"]
