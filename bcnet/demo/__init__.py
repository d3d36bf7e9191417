"""Web page that shows what a model finds in an image (``bcnet demo``, extra ``demo``).

`analysis` holds what the page computes and draws, without a web framework; `page` wires it to gradio.
"""

from bcnet.demo.analysis import Analysis, View, analyse

__all__ = ["Analysis", "View", "analyse"]
