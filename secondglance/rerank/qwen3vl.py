"""The second pass: Qwen3-VL-Reranker reads query and candidate together.

The recipe is that of `qwen3_vl_reranker.py` (QwenLM/Qwen3-VL-Embedding, Apache-2.0): one prompt
for a pair, and the probability that the next token is "yes" rather than "no".
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.errors import MediaError, ModelError
from secondglance.rerank import checkpoint, official, prompt
from secondglance.rerank.answers import failed
from secondglance.rerank.batching import Pair, windows
from secondglance.rerank.coarse import CoarseReranker, coarse_limits
from secondglance.rerank.limits import (
    FPS,
    MAX_FRAMES,
    MAX_PIXELS,
    MIN_PIXELS,
    TOTAL_PIXELS,
    Limits,
)
from secondglance.rerank.pixel_cache import PixelCache
from secondglance.rerank.preprocess import Side, prepare
from secondglance.types import Content, PairScore

if TYPE_CHECKING:
    import torch

    from secondglance.rerank import fp8 as eight

BATCH_TOKENS = {"cuda": 32_768}
BATCH_TOKENS_ELSEWHERE = 8_192
WINDOW_BATCHES = 2
"""Batches of candidates among which those of like length are looked for."""


class Qwen3VLReranker:
    """Any Qwen3-VL-Reranker checkpoint as a `Reranker`, and a drop-in for the official script.

    Args:
        model_name_or_path: Hub id, or local folder.
        max_length: Tokens of a pair, besides the five that end it; longer text is cut.
        min_pixels: Pixels of an image, at least.
        max_pixels: Pixels of an image, at most.
        total_pixels: Pixels of a video, at most; two frames share tokens and count once.
        fps: Frames a second taken from a video file.
        max_frames: Frames of a video, at most.
        default_instruction: What the candidate is judged by where a call does not say.
        device: None takes CUDA, then MPS, then the CPU.
        revision: Hub revision to pin.
        sha256: Expected hash of `model.safetensors`.
        batch_tokens: Tokens of a batch, padding included; None takes 32,768 on CUDA, 8,192
            elsewhere. Halved for a batch that does not fit in the device's memory.
        compiled: Fuse each layer's operations (torch.compile): faster, after a minute or more at
            the first batches.
        fp8: Compute the layers' matrices in 8 bits: faster on GPUs that have it. `fp8_drift`
            then tells how far the log-odds of a few pairs moved.
        pixel_cache_mb: Prepared pictures and clips of candidates kept in memory, in MiB.
        local_files_only: Never ask the hub.
        cache_dir: Folder of the hub cache.
        token: Hub token.
        **kwargs: Further arguments of transformers' `from_pretrained`: `dtype` (or
            `torch_dtype`; bfloat16 on CUDA, else float32), `attn_implementation`, `device_map`.

    Raises:
        ModelError: The checkpoint is missing, incomplete, of the wrong kind, or would need
            remote code or pickled weights.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        max_length: int = prompt.MAX_LENGTH,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = MAX_PIXELS,
        total_pixels: int = TOTAL_PIXELS,
        fps: float = FPS,
        max_frames: int = MAX_FRAMES,
        default_instruction: str = prompt.DEFAULT_INSTRUCTION,
        *,
        device: str | torch.device | None = None,
        revision: str | None = None,
        sha256: str | None = None,
        batch_tokens: int | None = None,
        compiled: bool = False,
        fp8: bool = False,
        pixel_cache_mb: int = 0,
        local_files_only: bool = False,
        cache_dir: str | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        _reject_unsafe(kwargs)
        self._name = str(model_name_or_path)
        folder = checkpoint.find(
            self._name,
            revision=revision,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
            token=token,
        )
        if sha256 is not None:
            checkpoint.verify(folder, sha256)
        import torch

        from secondglance.rerank import fp8 as eight
        from secondglance.rerank.engine import Engine, PlainForward
        from secondglance.rerank.forward import Forward, Normaliser

        self.max_length = max_length
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels
        self.total_pixels = total_pixels
        self.fps = fps
        self.max_frames = max_frames
        self.default_instruction = default_instruction
        chosen = torch.device(_auto_device() if device in (None, "auto") else device)
        default = torch.bfloat16 if chosen.type == "cuda" else torch.float32
        dtype = kwargs.pop("torch_dtype", None) or kwargs.pop("dtype", None) or default
        loaded = checkpoint.load(folder, device=chosen, options={"dtype": dtype, **kwargs})
        self.model = loaded.model
        self.processor = loaded.processor
        # None would make transformers warn; frames are resized before they get there.
        self.processor.video_processor.cap_pixels_per_frame = False
        self.device = loaded.head.device
        spread = len(set((getattr(self.model, "hf_device_map", None) or {}).values())) > 1
        forward: Forward | PlainForward
        if spread or "attn_implementation" in kwargs:
            forward = PlainForward(
                loaded.model, loaded.head, pixels=self._pixels, pad_id=loaded.pad_id
            )
        else:
            forward = Forward(
                loaded.model,
                loaded.head,
                pad_id=loaded.pad_id,
                image_normaliser=Normaliser.of(self.processor.image_processor),
                video_normaliser=Normaliser.of(self.processor.video_processor),
                compiled=compiled,
            )
        tokens = BATCH_TOKENS.get(self.device.type, BATCH_TOKENS_ELSEWHERE)
        self._engine = Engine(
            forward, name=self._name, device=self.device, batch_tokens=batch_tokens or tokens
        )
        self._special_ids = loaded.special_ids
        self._tokenizer = self.processor.tokenizer.backend_tokenizer
        self._tokenizer.encode_special_tokens = True  # plain text holds no control tokens
        self._prepared = PixelCache(pixel_cache_mb << 20)
        self.fp8_drift: eight.Drift | None = None
        if fp8:
            eight.check(self.device, dtype)
            self.fp8_drift = eight.quantise(self.model, lambda: self.log_odds(*eight.probe()))

    @property
    def name(self) -> str:
        """The hub id or folder that was asked for."""
        return self._name

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch, padding included."""
        return self._engine.batch_tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._engine.batch_tokens = tokens

    def score(
        self,
        query: Content,
        documents: Sequence[Content],
        *,
        instruction: str | None = None,
        timeout_s: float | None = None,
    ) -> list[PairScore]:
        """Scores every document against the query, in the order given.

        May be called from several threads: their pairs then share batches.

        `score` is sigmoid(`log_odds`). A document that cannot be read, or does not fit, has an
        `error` instead.

        Args:
            query: What is looked for.
            documents: The candidates.
            instruction: Replaces the default instruction.
            timeout_s: Longest wait for a stretch of candidates, in seconds; None waits as long as
                it takes.

        Raises:
            MediaError: The query cannot be read.
            RerankError: The model failed, or the time has passed.
        """
        return self._score(query, documents, instruction, self._limits(), timeout_s)

    def coarse(self, share: float) -> CoarseReranker:
        """A quicker, less exact look by the same loaded model.

        Args:
            share: Of `max_pixels` and `total_pixels`, above 0 and below 1; see `coarse_limits`.

        Raises:
            InputError: `share` is not in this range.
        """
        limits = coarse_limits(self._limits(), share)
        name = f"{self._name} ({share:.0%} of the pixels)"
        return CoarseReranker(name, partial(self._score, limits=limits))

    def log_odds(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[float]:
        """logit_yes - logit_no of every document; NaN where there is none. Raises as `score`."""
        scores = self.score(query, documents, instruction=instruction)
        return [math.nan if pair.log_odds is None else pair.log_odds for pair in scores]

    def process(self, inputs: Mapping[str, Any]) -> list[float]:
        """The official script's call.

        Args:
            inputs: `{"instruction", "query", "documents", "fps", "max_frames"}`. The query and
                each document are `{"text", "image", "video"}`: a text or a list, an image (path,
                URL, PIL picture) or a list, a video (path, URL, list of frames) or a list. The
                query's text may be a tuple (instruction, text).

        Returns:
            One probability a document, in order; empty without a query or documents. NaN, with a
            warning, for a document that cannot be read.

        Raises:
            MediaError: The query cannot be read.
            InputError: A value of a type that the format does not know.
            RerankError: The model failed.
        """
        query, documents = inputs.get("query"), inputs.get("documents")
        if not query or not documents:
            return []
        limits = self._limits(fps=inputs.get("fps"), max_frames=inputs.get("max_frames"))
        query, instruction = official.split_instruction(query)
        with tempfile.TemporaryDirectory(prefix="secondglance-") as folder:
            downloads = Path(folder)
            content = official.parse_content(query, downloads)
            parsed = official.parse_documents(documents, downloads)
            readable = [part for part in parsed if isinstance(part, Content)]
            scores = iter(
                self._score(content, readable, instruction or inputs.get("instruction"), limits)
            )
        results = []
        for number, part in enumerate(parsed):
            pair = next(scores) if isinstance(part, Content) else failed(part)
            if pair.score is None:
                warnings.warn(f"document {number} was not scored: {pair.error}", stacklevel=2)
            results.append(math.nan if pair.score is None else pair.score)
        return results

    def encode(
        self, query: Content, document: Content, *, instruction: str | None = None
    ) -> prompt.Encoded:
        """Token ids and positions of one pair, as the model gets them.

        Raises:
            MediaError: A side cannot be read, or the pair does not fit.
        """
        limits = self._limits()
        return self._encode(
            self._query_pieces(prepare(query, limits), instruction), prepare(document, limits)
        )

    def _limits(self, fps: float | None = None, max_frames: int | None = None) -> Limits:
        return Limits(
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            total_pixels=self.total_pixels,
            fps=fps or self.fps,
            max_frames=max_frames or self.max_frames,
            max_listed_frames=self.max_frames,
        )

    def _query_pieces(self, query: Side, instruction: str | None) -> list[prompt.Piece]:
        return prompt.query_pieces(query.pieces, instruction or self.default_instruction)

    def _encode(self, query: Sequence[prompt.Piece], document: Side) -> prompt.Encoded:
        return prompt.encode(
            query,
            prompt.document_pieces(document.pieces),
            tokenize=lambda text: self._tokenizer.encode(text, add_special_tokens=False).ids,
            special_ids=self._special_ids,
            max_length=self.max_length,
        )

    def _pair(
        self, place: int, pieces: Sequence[prompt.Piece], query: Side, document: Side
    ) -> Pair:
        """A pair of prepared sides; `pieces` are the query's, with the instruction."""
        return Pair(
            place=place,
            encoded=self._encode(pieces, document),
            images=query.images + document.images,
            videos=query.videos + document.videos,
            query_images=len(query.images),
            query_videos=len(query.videos),
            query_vision=query.vision_tokens,
        )

    def _score(
        self,
        query: Content,
        documents: Sequence[Content],
        instruction: str | None,
        limits: Limits,
        timeout_s: float | None = None,
    ) -> list[PairScore]:
        if not documents:
            return []
        try:
            query_side = prepare(query, limits)
        except MediaError as error:
            raise MediaError(f"the query: {error.problem}", remedy=error.remedy) from error
        pieces = self._query_pieces(query_side, instruction)

        def pair(place: int) -> Pair | MediaError:
            try:
                side = self._prepared.get(documents[place], limits)
                return self._pair(place, pieces, query_side, side)
            except MediaError as error:
                return error

        results: list[PairScore | None] = [None] * len(documents)

        def ready() -> Iterator[list[Pair]]:
            for window in windows(
                pair, len(documents), window_tokens=WINDOW_BATCHES * self.batch_tokens
            ):
                for place, made in window:
                    if isinstance(made, MediaError):
                        results[place] = failed(made)
                yield [made for _, made in window if isinstance(made, Pair)]

        for place, answer in self._engine.answers(ready(), timeout_s=timeout_s):
            results[place] = answer
        return [result for result in results if result is not None]

    def _pixels(self, batch: Sequence[Pair]) -> dict[str, torch.Tensor]:
        """Normalised patches of every image and video of a batch, in order of appearance."""
        images = [image for pair in batch for image in pair.images]
        videos = [video for pair in batch for video in pair.videos]
        inputs: dict[str, torch.Tensor] = {}
        if images:
            inputs |= self.processor.image_processor(
                images=images, do_resize=False, return_tensors="pt"
            )
        if videos:
            made = self.processor.video_processor(
                videos=videos, do_resize=False, do_sample_frames=False, return_tensors="pt"
            )
            inputs |= {name: made[name] for name in ("pixel_values_videos", "video_grid_thw")}
        return inputs


def _reject_unsafe(kwargs: dict[str, Any]) -> None:
    if kwargs.pop("trust_remote_code", False):
        raise ModelError(
            "trust_remote_code=True: code from checkpoints is never run",
            remedy="leave the argument out; Qwen3-VL is part of transformers",
        )
    if not kwargs.pop("use_safetensors", True):
        raise ModelError(
            "use_safetensors=False: pickled weights are never loaded",
            remedy="leave the argument out, and convert the checkpoint to safetensors",
        )


def _auto_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
