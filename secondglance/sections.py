"""The sections of the settings; `config` puts them together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Device = Literal["auto", "cpu", "cuda", "mps"]
Engine = Literal["local", "ray"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RecallSettings(_Section):
    """The first pass: which open-clip model embeds."""

    model: str = Field(
        default="builtin:starter",
        description="open-clip model name, hub id (org/name), local folder, builtin:starter, or "
        "builtin:untrained",
    )
    pretrained: str = Field(
        default="", description="open-clip tag, or a .safetensors file, for a model given by name"
    )
    revision: str | None = Field(default=None, description="hub revision to pin")
    sha256: str | None = Field(default=None, description="expected hash of the weights file")
    device: Device = Field(default="auto", description="auto takes CUDA, then MPS, then the CPU")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto is bf16 on CUDA, else fp32"
    )
    batch_size: int = Field(
        default=0, ge=0, le=4096, description="pictures or texts at once; 0: 256 on CUDA, else 32"
    )
    compiled: bool = Field(
        default=False, description="fuse the image tower; slow to start, then faster on GPUs"
    )


class RerankSettings(_Section):
    """The second pass. Pixel limits are those of the official recipe."""

    backend: Literal["qwen3vl", "remote", "passthrough"] = Field(
        default="qwen3vl",
        description="remote asks the servers of url; passthrough keeps recall order",
    )
    model: str = Field(
        default="builtin:starter",
        description="hub id, local folder, builtin:starter, or builtin:untrained; remote: what the "
        "server calls its model, builtin ones being whatever it has",
    )
    url: str | list[str] | None = Field(
        default=None, description="remote: the server, or several that serve the same model"
    )
    api_key: SecretStr | None = Field(
        default=None, description="remote: sent as a bearer token; never written to disk"
    )
    dialect: Literal["secondglance", "vllm", "jina", "cohere"] = Field(
        default="secondglance",
        description="remote: what the server understands; jina: text or a picture, cohere: text",
    )
    timeout_s: float = Field(
        default=60.0, gt=0, description="remote: longest wait for one answer, of some candidates"
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="remote: further tries of what was not delivered"
    )
    hedge_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="remote, several servers: share of requests that may go to a second one while "
        "the first takes long",
    )
    revision: str | None = Field(default=None, description="hub revision to pin")
    sha256: str | None = Field(
        default=None, description="expected hash of model.safetensors, if it is one file"
    )
    device: Device = Field(default="auto", description="auto takes CUDA, then MPS, then the CPU")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto is bfloat16 on CUDA and on CPUs with AMX, else float32"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto", description="auto is the engine's own; others run through transformers"
    )
    compiled: bool = Field(
        default=False, description="fuse each layer's operations; slow to start, then faster"
    )
    fp8: bool = Field(default=False, description="8-bit matrices, on GPUs that have them")
    min_pixels: int = Field(default=4096, ge=1024, description="smaller pictures are enlarged")
    max_pixels: int = Field(default=1_843_200, ge=4096, description="larger ones are reduced")
    total_pixels: int = Field(default=7_864_320, ge=4096, description="of a whole clip")
    fps: float = Field(default=1.0, gt=0, description="frames a second taken from a clip")
    max_frames: int = Field(default=64, ge=1, description="of a clip")
    max_length: int = Field(default=10_240, ge=256, description="tokens of a pair")
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens scored at once; none: 32,768 on CUDA (or what fits), else 8,192",
    )
    replicas: int = Field(
        default=1, ge=0, description="GPUs that share the work, each with the model; 0: all"
    )
    instruction: str | None = Field(default=None, description="replaces the official instruction")
    score_cache_mb: int = Field(
        default=256, ge=0, description="scores kept in the library's folder; 0: none"
    )
    pixel_cache_mb: int = Field(
        default=512, ge=0, description="prepared pictures and clips kept in memory; 0: none"
    )


class StoreSettings(_Section):
    """Where the vectors live."""

    backend: Literal["milvus", "faiss", "exact"] = Field(
        default="milvus", description="Milvus Lite or a server, FAISS, or NumPy"
    )
    uri: str | None = Field(
        default=None, description="a Milvus server; none: a file in the library"
    )
    token: SecretStr | None = Field(
        default=None, description="user:password or API key of the server; never written to disk"
    )
    collection: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$",
        description="on a server; none: a new name for each library",
    )
    index: Literal["auto", "flat", "hnsw", "sq8", "ivfpq", "gpu"] = Field(
        default="auto", description="faiss only; auto goes by number of vectors and memory"
    )
    hnsw_threshold: int = Field(default=50_000, ge=0, description="faiss: vectors until HNSW")
    server_index: Literal["auto", "flat", "hnsw", "ivf_sq8", "diskann"] = Field(
        default="auto", description="a Milvus server's; auto: by the memory that vectors take"
    )
    consistency: Literal["strong", "bounded", "session", "eventually"] = Field(
        default="strong", description="what searches on a Milvus server see of the latest writes"
    )
    tls_ca: Path | None = Field(default=None, description="PEM of the server's authority")
    tls_cert: Path | None = Field(default=None, description="PEM of our own certificate")
    tls_key: Path | None = Field(default=None, description="PEM of its key")
    tls_name: str | None = Field(default=None, description="host in the server's certificate")
    timeout_s: float = Field(default=10.0, gt=0, description="longest wait for a server")
    retry_s: float = Field(default=120.0, ge=0, description="longest wait of a job for it")


class IngestSettings(_Section):
    """How files are read, and the limits that untrusted bytes meet."""

    engine: Engine = Field(
        default="local", description="what decodes and embeds: this machine, or a Ray cluster"
    )
    ray_address: str | None = Field(
        default=None,
        description="host:port of the cluster, or auto; none: RAY_ADDRESS, or Ray on this machine",
    )
    workers: int = Field(default=0, ge=0, le=256, description="decode processes; 0: from the cores")
    timeout_s: float = Field(default=60.0, gt=0, description="for decoding one file")
    max_pixels: int = Field(default=178_956_970, ge=1, description="of one picture or frame")
    max_memory_mb: int = Field(default=4096, ge=512, description="data of one worker")
    max_segment_s: float = Field(
        default=5.0, gt=0, description="longest video segment; longer shots are split"
    )
    fps: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="video segments a second, of equal length; none: shots are found",
    )
    alike: float = Field(
        default=0.98,
        gt=0,
        le=1,
        description="neighbouring keyframes with a higher cosine become one segment; 1: none do",
    )
    video_decoder: Literal["pyav", "decord"] = Field(
        default="pyav", description="what reads keyframes; shots are always found with PyAV"
    )
    max_segments: int = Field(default=2000, ge=1, description="of one video or text")
    max_text_mb: float = Field(default=64.0, gt=0, description="of one text or manifest")
    passage_chars: int = Field(default=400, ge=40, description="longest passage of a text")


class SearchSettings(_Section):
    """How many candidates each pass sees, and how their scores become one order."""

    k: int = Field(default=10, ge=1, description="results")
    recall: int = Field(default=100, ge=1, description="candidates for the second pass")
    rerank: bool = Field(default=True, description="whether there is a second pass")
    lexical: bool = Field(
        default=True, description="captions, texts and file names are searched by words, too"
    )
    words_in: Literal["library", "store", "auto"] = Field(
        default="library",
        description="who ranks by words: an index in the library; the Milvus store (2.5 or newer, "
        "Lite 3); auto: the store where it can",
    )
    rerank_weight: float = Field(
        default=0.8, ge=0, le=1, description="share of the second pass in the fused score"
    )
    rerank_floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that one candidate must reach, or recall's order stays",
    )
    fitted: bool = Field(
        default=True,
        description="use what evaluate --fit learned from judgments, if it is for these models",
    )
    min_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="leave out results below: a probability where there is a fit, else the score",
    )
    group_duplicates: bool = Field(
        default=True, description="one result for pictures that look nearly the same"
    )
    moments: int = Field(
        default=3, ge=1, le=5, description="of each of the first videos, seen by the second pass"
    )
    not_weight: float = Field(
        default=0.5, ge=0, le=1, description="how far recall moves away from --not"
    )
