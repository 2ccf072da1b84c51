"""What the hosted service leaves unsaid, decided; each decision a switch. docs/hosted.md says what each means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.errors import InputError, reasons, unknown
from rewards.graders.template import Render

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """How graders behave where it is not known how the hosted ones do."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    render: Render = "json"
    """How a template writes what is no string."""
    error_score: Finite = 0.0
    """What a sample is worth that a grader can't grade because of the sample."""
    formula_fault: Literal["error_score", "unscored"] = "error_score"
    """What becomes of a sample whose formula divides by zero or overflows."""
    clamp: tuple[Finite, Finite] | None = Field(None, strict=False)
    """Ends at which the final score is cut off; hosted multi and python graders have none."""
    output_tools: Literal["last_calls", "last_message", "all"] = "last_calls"
    """Of an episode with many turns: the calls of the last turn that had any, of the last message, or of all."""
    response_format: dict[str, Any] | None = None
    """The job's: then a sample must be JSON that fits its schema, or is a sample_parse_error."""
    fuzzy_match: Literal["ratio", "partial_ratio", "token_sort_ratio", "token_set_ratio", "WRatio", "QRatio"] = "ratio"
    """The function of rapidfuzz.fuzz."""
    tokens: Literal["whitespace", "treebank", "wordpunct"] = "whitespace"
    """What splits texts into words for bleu, gleu and meteor: str.split, or a tokenizer of nltk."""
    bleu_smoothing: Literal["none", "method1", "method2", "method3", "method4", "method5", "method7"] = "method1"
    """Of nltk's SmoothingFunction; without any, a text that shares no four words in a row scores 0."""
    meteor_synonyms: Literal["wordnet", "none"] = "wordnet"
    """wordnet is nltk's corpus, which must be on the machine; none matches words and stems alone."""
    rouge: Literal["fmeasure", "precision", "recall"] = "fmeasure"
    rouge_stemmer: bool = False

    def model_post_init(self, context: Any, /) -> None:
        if self.clamp is not None and self.clamp[0] >= self.clamp[1]:
            raise ValueError("clamp is empty: the first number must be the smaller")

    @classmethod
    def read(cls, value: Mapping[str, Any] | str | Path | None, where: str = "settings") -> Settings:
        """Settings of a mapping or of a JSON file with one; None has every default.

        Raises:
            InputError: an unknown key, a value that does not fit, a file that can't be read.
        """
        if isinstance(value, (str, Path)):
            where = str(value)
            try:
                value = json.loads(Path(value).read_text(encoding="utf-8"))
            except OSError as error:
                raise InputError(f"{where}: can't read the settings: {error.strerror}") from error
            except ValueError as error:
                raise InputError(f"{where}: not JSON ({error})") from error
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: expected an object of settings, found {type(value).__name__}")
        for key in value:
            if key not in cls.model_fields:
                raise InputError(f"{where}: {unknown('setting', str(key), cls.model_fields)}")
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            raise InputError(f"{where}: {reasons(error)}") from error
