"""The demo's web page: gradio components and events around `bcnet.demo.analysis`, and the server.

Nothing is loaded from elsewhere: gradio's analytics and version check are off, fonts are the browser's own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bcnet.demo.analysis import LOWEST_SCORE, MEBIBYTE, Analysis, Shown, View, analyse, read_upload
from bcnet.export import ExportedPredictor
from bcnet.files import write_text
from bcnet.prediction import Predictor

# Read by gradio when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

try:
    import gradio
    from gradio.themes import Default
except ImportError as import_error:
    raise ImportError("the demo needs the package gradio: pip install 'bcnet[demo]'") from import_error

FIRST_SCORE, FIRST_MASK = 0.5, 0.5  # thresholds at the start
STATE_SECONDS, SESSIONS = 3600, 20  # how long results are kept, and of how many visitors
PANELS = {"amodal": "Visible and hidden parts", "occluder": "Occluder layer", "order": "Depth order"}
_SENTENCE = "Upload an image, or take an example."
_NOT_CHOSEN = [None, None, _SENTENCE, ""]  # no choice, no heat maps, no graph


@dataclass
class Server:
    """A running demo.

    Attributes:
        url: of the page.
    """

    url: str
    _page: gradio.Blocks
    _folder: tempfile.TemporaryDirectory

    def wait(self) -> None:
        """Waits until the process is interrupted.

        Raises:
            KeyboardInterrupt: it was.
        """
        threading.Event().wait()

    def close(self) -> None:
        self._page.close(verbose=False)
        self._folder.cleanup()


def build_page(
    model: Predictor | ExportedPredictor, *, examples: Sequence[tuple[np.ndarray, str]], max_bytes: int, folder: str
) -> gradio.Blocks:
    """The page; nothing runs yet.

    Args:
        model: a detector with masks.
        examples: images, uint8 [H, W, 3] RGB, with their names.
        max_bytes: of an uploaded file.
        folder: for the files that are downloaded.
    """
    events = Events(model, examples, max_bytes, folder)
    # State lives in the server's memory; files that gradio kept for a page are deleted after a while.
    with gradio.Blocks(title="bcnet demo", analytics_enabled=False, delete_cache=(600, STATE_SECONDS)) as page:
        gradio.Markdown("## bcnet: what is visible of each object, what lies on it, what is hidden, who is in front")
        analysis = gradio.State(None, time_to_live=STATE_SECONDS)
        selected = gradio.State(None, time_to_live=STATE_SECONDS)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=340):
                limit = f"at most {max_bytes / MEBIBYTE:.3g} MiB"
                upload = gradio.File(label=f"Image ({limit})", height=150, elem_id="upload")
                gallery = gradio.Gallery(
                    value=[image for image, _ in examples],
                    label="Examples",
                    columns=3,
                    height=150,
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                score = gradio.Slider(LOWEST_SCORE, 1, FIRST_SCORE, step=0.01, label="Score threshold", elem_id="score")
                mask = gradio.Slider(0.05, 0.95, FIRST_MASK, step=0.01, label="Mask threshold", elem_id="mask")
                download = gradio.DownloadButton("Download as JSON", interactive=False, elem_id="download")
                summary = gradio.Textbox(label="In words", lines=6, interactive=False, elem_id="summary")
            with gradio.Column(scale=3):
                gradio.Markdown("Click an object to see its heat maps below.")
                picture = _image("Detections", "picture")
                with gradio.Column(elem_id="heat_maps"):
                    heat_maps = _shown("Heat maps")
                with gradio.Tabs():
                    panels = []
                    for title in PANELS.values():
                        with gradio.Tab(title):
                            panels += _shown(title)
                    with gradio.Tab("Order graph"):
                        graph = gradio.HTML(elem_id="graph")
        thresholds = [score, mask]
        chosen = [selected, *heat_maps, graph]
        everything = [picture, *panels, summary, download, *chosen]
        private = {"api_visibility": "private"}
        start: dict[str, Any] = {"outputs": [analysis, *everything], "show_progress": "minimal", **private}
        # One after the other: an older threshold must not overwrite what a click has chosen meanwhile.
        in_turn = {"concurrency_id": "views", "concurrency_limit": 1}
        quick: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **in_turn, **private}
        upload.change(events.uploaded, [upload, *thresholds], **start)
        gallery.select(events.example_chosen, thresholds, **start)
        for slider in thresholds:
            slider.change(events.threshold_moved, [analysis, selected, *thresholds], everything, **quick)
        picture.select(events.clicked, [analysis, *thresholds], chosen, **quick)
    return page


class Events:
    """What happens on the page. Each method takes the values of its inputs and returns those of its outputs."""

    def __init__(
        self,
        model: Predictor | ExportedPredictor,
        examples: Sequence[tuple[np.ndarray, str]],
        max_bytes: int,
        folder: str,
    ) -> None:
        self.model = model
        self.examples = examples
        self.max_bytes = max_bytes
        self.folder = folder

    def uploaded(self, path: str | None, score: float, mask: float, request: gradio.Request) -> list[Any]:
        if path is None:
            return [None, *_nothing()]
        try:
            image = read_upload(path, max_bytes=self.max_bytes, max_pixels=self.model.max_image_pixels)
        except ValueError as error:
            gradio.Warning(str(error), title="Not accepted")
            return [None, *_nothing()]
        return self._started(image, os.path.basename(path), score, mask, request)

    def example_chosen(self, score: float, mask: float, event: gradio.SelectData, request: gradio.Request) -> list[Any]:
        image, name = self.examples[event.index]
        return self._started(image, name, score, mask, request)

    def threshold_moved(
        self, analysis: Analysis | None, selected: int | None, score: float, mask: float, request: gradio.Request
    ) -> list[Any]:
        if analysis is None:
            return _nothing()
        return self._shown(analysis.view(score, mask), selected, request)

    def clicked(self, analysis: Analysis | None, score: float, mask: float, event: gradio.SelectData) -> list[Any]:
        if analysis is None:
            return _NOT_CHOSEN
        view = analysis.view(score, mask)
        return _chosen(view, view.position_at(*event.index))

    def _started(self, image: np.ndarray, name: str, score: float, mask: float, request: gradio.Request) -> list[Any]:
        analysis = analyse(self.model, image, name)
        return [analysis, *self._shown(analysis.view(score, mask), None, request)]

    def _shown(self, view: View, selected: int | None, request: gradio.Request) -> list[Any]:
        stem = os.path.splitext(view.analysis.name)[0] or "detections"
        path = os.path.join(self.folder, str(request.session_hash), f"{stem}.json")
        write_text(view.to_json(), path)
        download = gradio.DownloadButton(value=path, interactive=True)
        panels = [value for name in PANELS for value in _values(view.panel(name))]
        return [view.picture, *panels, view.summary(), download, *_chosen(view, selected)]


def serve(
    model: Predictor | ExportedPredictor,
    *,
    examples: Sequence[tuple[np.ndarray, str]],
    host: str = "127.0.0.1",
    port: int | None = None,
    max_bytes: int = 20 * MEBIBYTE,
    browser: bool = False,
) -> Server:
    """Starts the demo in a thread.

    Args:
        model: a detector with masks.
        examples: images with their names.
        host: address to listen at; "0.0.0.0" lets other computers in.
        port: None takes the first free one from 7860 on.
        max_bytes: of an uploaded file.
        browser: open the page in the system's browser.

    Raises:
        OSError: the port is taken.
    """
    folder = tempfile.TemporaryDirectory(prefix="bcnet-demo-")
    page = build_page(model, examples=examples, max_bytes=max_bytes, folder=folder.name)
    with _without_proxy(host):
        _, url, _ = page.queue(max_size=SESSIONS).launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=browser,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            show_error=True,
            max_file_size=max_bytes,
            allowed_paths=[folder.name],
            state_session_capacity=SESSIONS,
            footer_links=[],
            theme=Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    return Server(url, page, folder)


@contextlib.contextmanager
def _without_proxy(host: str) -> Iterator[None]:
    """No proxy for this computer within the context: gradio asks its own server whether it is up."""
    names = ("no_proxy", "NO_PROXY")
    before = {name: os.environ.get(name) for name in names}
    for name, value in before.items():
        os.environ[name] = ",".join(filter(None, (value, "localhost", "127.0.0.1", host)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _image(label: str, elem_id: str | None = None) -> gradio.Image:
    # A label that is shown lies on the picture's corner.
    options = {"interactive": False, "show_label": False, "format": "jpeg", "buttons": ["fullscreen"]}
    return gradio.Image(label=label, elem_id=elem_id, **options)


def _shown(title: str) -> list[Any]:
    """Components for a `Shown`."""
    return [_image(title), gradio.Markdown(_SENTENCE)]


def _values(shown: Shown) -> list[Any]:
    return [shown.picture, shown.sentence]


def _chosen(view: View, selected: int | None) -> list[Any]:
    """The choice, its heat maps, and the order graph, in which it is marked."""
    selected = selected if selected is not None and selected < len(view.detections) else None
    return [selected, *_values(view.heat_maps(selected)), view.order_graph(selected)]


def _nothing() -> list[Any]:
    """The page without an image."""
    return [
        None,
        *[value for _ in PANELS for value in _values(Shown(None, _SENTENCE))],
        "",
        gradio.DownloadButton(value=None, interactive=False),
        *_NOT_CHOSEN,
    ]
