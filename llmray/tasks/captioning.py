"""Describe a picture.  It does not know where pictures come from."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from llmray.corpus.record import Columns, Picture, Record
from llmray.corpus.shapes import stated, states_facts
from llmray.job.errors import ModelError, RequestError
from llmray.tasks.base import Answer, Request, Task, Tensors
from llmray.tasks.generating import grouped
from llmray.tasks.metrics import translation_scores
from llmray.tasks.parameters import SequenceParameters, generation, judged
from llmray.tasks.tensors import padded

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel

MAX_PIXELS = 40_000_000
"""Larger pictures are refused before they are unpacked."""


class Captioning(Task):
    """Inputs `{"image": bytes}`; answers `{"generated_text"}`."""

    name: ClassVar[str] = "captioning"
    record: ClassVar[type[Record]] = Picture
    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    headline: ClassVar[str] = "bleu"

    def encode(self, rows: Columns) -> Columns:
        """One feature row a caption: the picture as bytes of (3, height, width), the caption's ids."""
        pixels, labels = [], []
        for image, captions in zip(rows["image"], rows["captions"], strict=True):
            flat = self._pixels(bytes(image)).tobytes()
            for ids in self._ids([str(c) for c in captions]):
                pixels.append(flat)
                labels.append(ids)
        return {"pixels": pixels, "labels": labels}

    def _ids(self, captions: list[str]) -> list[list[int]]:
        tokenizer = self.processor.tokenizer
        all_ids = tokenizer(captions, add_special_tokens=False)["input_ids"]
        return [[*ids[: self.options.max_tokens - 1], int(tokenizer.eos_token_id)] for ids in all_ids]

    def collate(self, features: Columns) -> Tensors:
        flat = [np.frombuffer(pixels, np.uint8) for pixels in features["pixels"]]
        pictures = np.stack(flat).reshape(len(flat), 3, *self._size)
        labels = padded(features["labels"], -100)
        # The decoder reads its own start first, then all labels but the last.
        read = torch.nn.functional.pad(labels[:, :-1] != -100, (1, 0), value=True)
        return {"pixel_values": self._normalised(pictures), "labels": labels, "decoder_attention_mask": read.long()}

    @property
    def _images(self) -> Any:
        """The image processor; a model without one sees no pictures."""
        if self.processor.image_processor is None:
            raise ModelError("this model brings no image processor (preprocessor_config.json), so it sees no pictures")
        return self.processor.image_processor

    @property
    def _size(self) -> tuple[int, int]:
        size = self._images.size
        return int(size["height"]), int(size["width"])

    def _pixels(self, image: bytes) -> np.ndarray:
        """A decoded, upright, resized RGB picture: uint8 (3, height, width).  Raises `RequestError` (413, 415)."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                picture: Image.Image = Image.open(io.BytesIO(image))
            if picture.width * picture.height > MAX_PIXELS:
                raise RequestError(
                    f"the picture has {picture.width}×{picture.height} pixels; at most {MAX_PIXELS:,}", 413
                )
            picture = ImageOps.exif_transpose(picture).convert("RGB")
        except Image.DecompressionBombError:
            raise RequestError(f"the picture has more than {MAX_PIXELS:,} pixels", 413) from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise RequestError(f"not a picture that can be read (PNG, JPEG, GIF, WebP …): {error}", 415) from None
        height, width = self._size
        if picture.size != (width, height):
            resample = Image.Resampling(int(self._images.resample))
            picture = picture.resize((width, height), resample)
        return np.asarray(picture).transpose(2, 0, 1)

    def _normalised(self, pictures: np.ndarray) -> torch.Tensor:
        """Exactly what the image processor does after resizing: rescale, then mean and deviation of each channel."""
        processor = self._images
        scale = float(processor.rescale_factor)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
        return (torch.from_numpy(pictures.copy()).float() * scale - mean) / std

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        def told(parameters: SequenceParameters, pictures: list[np.ndarray]) -> list[Answer]:
            return [{"generated_text": text} for text in self._describe(model, pictures, parameters)]

        return grouped(
            requests, lambda r: (judged(SequenceParameters, r.parameters), self._pixels(r.inputs["image"])), told
        )

    def _describe(
        self, model: PreTrainedModel, pictures: list[np.ndarray], parameters: SequenceParameters
    ) -> list[str]:
        tokenizer = self.processor.tokenizer
        config = generation(
            parameters, self.options.beams, self.options.max_tokens,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=model.config.decoder_start_token_id,
        )  # fmt: skip
        pixels = self._normalised(np.stack(pictures)).to(model.device)
        out = model.generate(pixel_values=pixels, generation_config=config)
        return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        pictures = [self._pixels(bytes(image)) for image in rows["image"]]
        with torch.inference_mode():
            told = self._describe(model, pictures, SequenceParameters())
        return self._judge(told, rows)

    def _judge(self, told: Sequence[str], rows: Columns) -> list[dict[str, Any]]:
        return [
            {"caption": caption, "references": [str(c) for c in references]}
            for caption, references in zip(told, rows["captions"], strict=True)
        ]

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        """BLEU and exact match; for scenes of `builtin:shapes` also `facts`, the share of captions that state them."""
        count = max(len(measurements), 1)
        exact = sum(m["caption"] in m["references"] for m in measurements)
        scores = translation_scores([m["caption"] for m in measurements], [m["references"] for m in measurements])
        found = {"bleu": scores["bleu"], "chrf": scores["chrf"], "exact_match": 100 * exact / count}
        if measurements and all(stated(r) for m in measurements for r in m["references"]):
            found["facts"] = 100 * sum(states_facts(m["caption"], m["references"]) for m in measurements) / count
        return found

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """The training captions' most frequent one, for every picture."""
        usual = Counter(str(c) for captions in train["captions"] for c in captions).most_common(1)[0][0]
        return self.summarise(self._judge([usual] * len(held_out["captions"]), held_out))
