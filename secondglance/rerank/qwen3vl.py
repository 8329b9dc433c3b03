"""The second pass: Qwen3-VL-Reranker reads query and candidate together.

The recipe is that of `qwen3_vl_reranker.py` (QwenLM/Qwen3-VL-Embedding, Apache-2.0): one prompt
for a pair, and the probability that the next token is "yes" rather than "no".
"""

from __future__ import annotations

import gc
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.errors import MediaError
from secondglance.rerank import checkpoint, official, options, prompt
from secondglance.rerank.answers import TooLarge, failed
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

logger = logging.getLogger(__name__)

BATCH_TOKENS = 32_768
"""On CUDA, memory permitting."""
BATCH_TOKENS_ELSEWHERE = 8_192
REDUCTION = 0.5
"""Share of the pixels that is tried next for a candidate that does not fit in memory."""
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
        batch_tokens: Tokens of a batch, padding included; None takes 32,768 on CUDA, or what its
            free memory allows, and 8,192 elsewhere. Lowered when a batch does not fit.
        replicas: GPUs that share the work, from `device` on, each with the whole model; 0: all.
        compiled: Fuse each layer's operations (torch.compile): faster, after a minute or more at
            the first batches.
        fp8: Compute the layers' matrices in 8 bits: faster on GPUs that have it. `fp8_drift`
            then tells how far the log-odds of a few pairs moved.
        pixel_cache_mb: Prepared pictures and clips of candidates kept in memory, in MiB.
        local_files_only: Never ask the hub.
        cache_dir: Folder of the hub cache.
        token: Hub token.
        **kwargs: Further arguments of transformers' `from_pretrained`: `dtype` (or
            `torch_dtype`; see `default_dtype`), `attn_implementation`, `device_map`.

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
        replicas: int = 1,
        compiled: bool = False,
        fp8: bool = False,
        pixel_cache_mb: int = 0,
        local_files_only: bool = False,
        cache_dir: str | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        options.reject_unsafe(kwargs)
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

        from secondglance.rerank import fp8 as eight
        from secondglance.rerank.engine import Engine
        from secondglance.rerank.forward import Forward, Normaliser
        from secondglance.rerank.replica import PlainForward

        self.max_length = max_length
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels
        self.total_pixels = total_pixels
        self.fps = fps
        self.max_frames = max_frames
        self.default_instruction = default_instruction
        devices = options.devices(device, replicas)
        default = options.default_dtype(devices[0])
        dtype = kwargs.pop("torch_dtype", None) or kwargs.pop("dtype", None) or default
        own_kernels = options.own_kernels(kwargs)
        loaded = [
            checkpoint.load(folder, device=chosen, options={"dtype": dtype, **kwargs})
            for chosen in devices
        ]
        self.model = loaded[0].model
        self.processor = loaded[0].processor
        # None would make transformers warn; frames are resized before they get there.
        self.processor.video_processor.cap_pixels_per_frame = False
        self.device = loaded[0].head.device
        spread = len(set((getattr(self.model, "hf_device_map", None) or {}).values())) > 1

        def forward(part: checkpoint.Checkpoint) -> Forward | PlainForward:
            if spread or not own_kernels:
                return PlainForward(
                    part.model, part.head, processor=self.processor, pad_id=part.pad_id
                )
            return Forward(
                part.model,
                part.head,
                pad_id=part.pad_id,
                image_normaliser=Normaliser.of(self.processor.image_processor),
                video_normaliser=Normaliser.of(self.processor.video_processor),
                compiled=compiled,
            )

        self._engine = Engine(
            [forward(part) for part in loaded],
            name=self._name,
            batch_tokens=batch_tokens or self._fitting_tokens(),
        )
        self._special_ids = loaded[0].special_ids
        self._tokenizer = self.processor.tokenizer.backend_tokenizer
        self._tokenizer.encode_special_tokens = True  # plain text holds no control tokens
        self._prepared = PixelCache(pixel_cache_mb << 20)
        self.fp8_drift: eight.Drift | None = None
        if fp8:
            eight.check(self.device, dtype)
            models = [part.model for part in loaded]
            self.fp8_drift = eight.quantise(models, lambda: self.log_odds(*eight.probe()))

    @property
    def name(self) -> str:
        """The hub id or folder that was asked for."""
        return self._name

    @property
    def memory_bytes(self) -> int:
        """What the model takes on each device, without the batches it works on; 0 when closed."""
        from secondglance.rerank.memory import model_bytes

        return 0 if self.model is None else model_bytes(self.model)

    def close(self) -> None:
        """Frees the model's memory, after the batches that run. Scoring then raises RerankError."""
        import torch

        self._engine.close()
        self.model = None
        self._prepared = PixelCache(0)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

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

        `score` is sigmoid(`log_odds`). A document that cannot be read has an `error` instead. One
        that does not fit in the device's memory is scored with fewer pixels, and says so
        (`reduced`).

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

    def _fitting_tokens(self) -> int:
        import torch

        from secondglance.rerank.memory import fitting_tokens

        if self.device.type != "cuda":
            return BATCH_TOKENS_ELSEWHERE
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        return fitting_tokens(
            self.model.config, self.model.dtype.itemsize, free_bytes=free_bytes, most=BATCH_TOKENS
        )

    def _pair(
        self, place: int, pieces: Sequence[prompt.Piece], query: Side, document: Side
    ) -> Pair:
        """A pair of prepared sides; `pieces` are the query's, with the instruction."""
        images, videos = document.images, document.videos
        if self.device.type == "cuda":  # from there they go to the GPU while it works
            images = tuple(pixels.pin_memory() for pixels in images)
            videos = tuple(pixels.pin_memory() for pixels in videos)
        return Pair(
            place=place,
            encoded=self._encode(pieces, document),
            images=query.images + images,
            videos=query.videos + videos,
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
        large = [place for place, result in enumerate(results) if isinstance(result, TooLarge)]
        smaller = coarse_limits(limits, REDUCTION)
        if large and smaller != limits:
            again = [documents[place] for place in large]
            found = self._score(query, again, instruction, smaller, timeout_s)
            for place, result in zip(large, found, strict=True):
                results[place] = self._noted(result, smaller)
        return [result for result in results if result is not None]

    def _noted(self, result: PairScore, limits: Limits) -> PairScore:
        """Says with which share of the pixels a pair was scored, if it was."""
        if result.score is None or result.reduced is not None:
            return result
        share = limits.total_pixels / self.total_pixels
        logger.warning(
            "a candidate was scored with %.0f%% of its pixels: more do not fit in the memory of %s",
            100 * share,
            self.device,
        )
        return replace(result, reduced=share)
