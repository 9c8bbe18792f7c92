"""Short texts, and what they are turned into, for several tests."""

# ruff: noqa: RUF001 (Chinese punctuation is meant)

from __future__ import annotations

from pathlib import Path

from fastnlp import Corpus

TEXT = "the cat sat\non the mat\n\nthe end\n"
CHINESE = "满纸荒唐言，一把辛酸泪！\n都云作者痴，谁解其中味？\n"


def text_file(folder: Path, text: str | bytes = TEXT, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def documents(corpus: Corpus) -> list[str]:
    return [" ".join(corpus.vocab.words[i] for i in ids) for ids in corpus.documents()]
