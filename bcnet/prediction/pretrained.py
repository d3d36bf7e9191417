"""Methods of `Predictor` that write the model for others: a model folder, and a repository on the Hugging Face Hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bcnet.prediction.predictor import Predictor


class Pretrained:
    """Base of `Predictor`: saving and uploading."""

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        *,
        run: str | os.PathLike | None = None,
        license: str | None = None,
        precision: str = "fp32",
        replace_card: bool = False,
    ) -> None:
        """Writes the model into a folder that `bcnet.load` takes: safetensors weights, config, class names, model card.

        Written are ``model.safetensors``, ``config.json`` and, if there is none yet, ``README.md``, each atomically.

        Args:
            folder: made if missing.
            run: OUTPUT_DIR of the training, whose commands and results the card quotes.
            license: of the weights, such as "mit" or "cc-by-4.0", for the card.
            precision: "fp32", or "fp16" for half the size; loading makes float32 of it.
            replace_card: write the card over an existing one.

        Raises:
            ValueError: the model has no config, or an unknown precision.
            FileNotFoundError: `run` is not the folder of a training.
            OSError: the folder cannot be written to.
        """
        from bcnet.prediction.hub import save_pretrained

        options = {"run": run, "license": license, "precision": precision, "replace_card": replace_card}
        save_pretrained(cast("Predictor", self), folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face Hub; ``bcnet.load("hf://owner/name")`` loads it.

        Args:
            repo_id: "owner/name"; made if it does not exist. The card of one that has a card stays.
            options: of `save_pretrained`; and ``private=True`` for a new repository, ``message=`` of the commit.

        Returns:
            str: the URL of the repository.

        Raises:
            ImportError: huggingface_hub is not installed (extra ``hub``).
            PermissionError: nobody is logged in, or may not write there.
            OSError: the upload failed.
        """
        from bcnet.prediction.hub import push_to_hub

        return push_to_hub(cast("Predictor", self), repo_id, **options)
