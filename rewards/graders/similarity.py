"""How alike two texts are, by the libraries the hosted sandbox has: rapidfuzz, nltk, rouge-score.

Each metric is `(input, reference) -> 0..1`. What the hosted service runs exactly is not known; `Settings`
has a switch for each choice. `cosine` takes an embedding function, and is refused without one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from envs.errors import InputError
from rewards.graders.settings import Settings

Metric: TypeAlias = Callable[[str, str], float]
Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""Texts to vectors, one a text, all of one length."""


def metric(name: str, settings: Settings) -> Metric:
    """The metric of that name; its library is loaded here, not while something waits for a score.

    Raises:
        InputError: its library or its data is not on this machine, or it is cosine.
    """
    try:
        if name == "fuzzy_match":
            return _fuzzy(settings)
        if name.startswith("rouge_"):
            return _rouge(name, settings)
        return {"bleu": _bleu, "gleu": _gleu, "meteor": _meteor}[name](settings)
    except ImportError as error:
        raise InputError(f"{name} needs {error.name}; run: pip install 'localrft[graders]'") from error


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine of two vectors; 0 where one is all zeros.

    Raises:
        ValueError: their lengths differ.
    """
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    size = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return dot / size if size else 0.0


def _fuzzy(settings: Settings) -> Metric:
    from rapidfuzz import fuzz

    ratio: Callable[..., float] = getattr(fuzz, settings.fuzzy_match)
    return lambda input, reference: ratio(input, reference) / 100


def _bleu(settings: Settings) -> Metric:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    warnings.filterwarnings("ignore", message=r"\s*The hypothesis contains 0 counts", module="nltk")
    split = _splitter(settings)
    chosen = "method0" if settings.bleu_smoothing == "none" else settings.bleu_smoothing
    smoothing = getattr(SmoothingFunction(), chosen)

    def bleu(input: str, reference: str) -> float:
        said, wanted = split(input), split(reference)
        # One word has no length that the smoothings 4, 5 and 7 could take a logarithm of.
        if not said or not wanted:
            return 0.0
        try:
            return min(1.0, max(0.0, float(sentence_bleu([wanted], said, smoothing_function=smoothing))))
        except (ZeroDivisionError, ValueError):
            return 0.0

    return bleu


def _gleu(settings: Settings) -> Metric:
    from nltk.translate.gleu_score import sentence_gleu

    split = _splitter(settings)
    return lambda input, reference: float(sentence_gleu([split(reference)], split(input)))


def _meteor(settings: Settings) -> Metric:
    from nltk.translate.meteor_score import meteor_score

    split, words = _splitter(settings), _wordnet() if settings.meteor_synonyms == "wordnet" else _NoSynonyms()
    return lambda input, reference: float(meteor_score([split(reference)], split(input), wordnet=words))


class _NoSynonyms:
    """A wordnet that knows no word."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise InputError(
            "meteor needs nltk's wordnet for synonyms, and it is not on this machine; run: python -m nltk.downloader "
            'wordnet; or go without synonyms, at other numbers: the setting "meteor_synonyms": "none"'
        ) from error
    return wordnet


def _rouge(name: str, settings: Settings) -> Metric:
    from rouge_score.rouge_scorer import RougeScorer

    kind = "rougeL" if name == "rouge_l" else f"rouge{name.removeprefix('rouge_')}"
    scorer = RougeScorer([kind], use_stemmer=settings.rouge_stemmer)
    return lambda input, reference: float(getattr(scorer.score(reference, input)[kind], settings.rouge))


def _splitter(settings: Settings) -> Callable[[str], list[str]]:
    if settings.tokens == "whitespace":
        return str.split
    from nltk.tokenize import NLTKWordTokenizer, wordpunct_tokenize

    split: Callable[[str], list[str]] = (
        NLTKWordTokenizer().tokenize if settings.tokens == "treebank" else wordpunct_tokenize
    )
    return split
