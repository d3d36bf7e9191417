"""bcnet: occlusion-aware instance segmentation with overlapping bilayers."""

__version__ = "0.1.0"
