"""Inspection of data sets before training: counts, occlusion, suspicious entries, shared images, config keys."""
