"""Stronger guards for text than the one that ships: any text classifier of the hub, and guard language models."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.safety.hub_model import LOCAL, HubGuard, label_columns, load_model, scores_of
from gpt4video_cli.weights.guard_card import GuardCard

if TYPE_CHECKING:
    import torch

WINDOW, OVERLAP = 512, 64
"""Tokens. A longer text is judged in windows, and the highest score of any counts."""
BATCH = 16
_PLACE = "\ue000"  # of the Private Use Area: no template has it
_LEAST = 0.05
"""Likelihood of "unsafe" below which a language model is not asked for the kinds: no policy refuses there."""
_LONGEST_ANSWER = 16


class TextClassifier(HubGuard):
    """A classifier of transformers, such as one for toxicity. Its weights are read when the first text comes."""

    @cached_property
    def _loaded(self) -> tuple[Any, torch.device, Any, dict[int, str]]:
        from transformers import AutoModelForSequenceClassification

        model, device = load_model(AutoModelForSequenceClassification, self._folder, self._card)
        return model, device, _tokenizer(self._folder, self._card), label_columns(model, self._card)

    def score(self, text: str) -> dict[str, float]:
        """See ``TextGuard.score``."""
        import torch

        model, device, tokenizer, columns = self._loaded
        # Some position tables begin behind the padding token (RoBERTa: 514 for 512 tokens).
        longest = min(WINDOW, getattr(model.config, "max_position_embeddings", WINDOW + 2) - 2)
        windows = tokenizer(
            _unicode(text),
            split_special_tokens=True,
            truncation=True,
            max_length=longest,
            stride=min(OVERLAP, longest // 2),
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        )
        highest: dict[str, float] = {}
        for start in range(0, len(windows["input_ids"]), BATCH):
            part = {name: windows[name][start : start + BATCH].to(device) for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                logits = model(**part).logits
            for scores in scores_of(logits, columns, many=self._card.many):
                highest = {name: max(score, highest.get(name, 0.0)) for name, score in scores.items()}
        return highest


class GuardLanguageModel(HubGuard):
    """A language model that answers "safe", or "unsafe" and codes such as S1, to what its chat template shows it.

    Llama Guard is one. A score is the likelihood of "unsafe" against "safe", for the kinds that it names after that.
    """

    @cached_property
    def _loaded(self) -> tuple[Any, torch.device, Any]:
        from transformers import AutoModelForCausalLM

        model, device = load_model(AutoModelForCausalLM, self._folder, self._card)
        tokenizer = _tokenizer(self._folder, self._card)
        if tokenizer.chat_template is None:
            raise WeightsError(f"{self._folder}: guard {self._card.name!r} has no chat template")
        return model, device, tokenizer

    def score(self, text: str) -> dict[str, float]:
        """See ``TextGuard.score``."""
        import torch

        model, _, tokenizer = self._loaded
        longest = getattr(model.config, "max_position_embeddings", WINDOW)
        before, after = self._template()
        ids = _untrusted(tokenizer, text)
        room = min(longest, 8192) - len(before) - len(after) - 2 * _LONGEST_ANSWER
        if room <= OVERLAP:
            raise WeightsError(f"guard {self._card.name!r}: its template leaves no room for a text")
        highest: dict[str, float] = {}
        for start in range(0, max(1, len(ids) - OVERLAP), room - OVERLAP):
            with torch.inference_mode():
                scores = self._judge([*before, *ids[start : start + room], *after])
            highest |= {name: max(score, highest.get(name, 0.0)) for name, score in scores.items()}
        return highest

    def _template(self) -> tuple[list[int], list[int]]:
        """The tokens of the chat template before and after a message's text, which is to be no part of it."""
        _, _, tokenizer = self._loaded
        turn = {"role": "user", "content": [{"type": "text", "text": _PLACE}]}
        text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        if text.count(_PLACE) != 1:  # a template for plain texts would show the list itself, or nothing
            turn = {"role": "user", "content": _PLACE}  # type: ignore[dict-item]
            text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        if text.count(_PLACE) != 1:
            raise WeightsError(f"{self._folder}: the chat template of guard {self._card.name!r} shows no message")
        before, _, after = text.partition(_PLACE)
        return tuple(tokenizer.encode(part, add_special_tokens=False) for part in (before, after))  # type: ignore[return-value]

    def _judge(self, ids: list[int]) -> dict[str, float]:
        import torch

        model, device, tokenizer = self._loaded
        yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("unsafe", "safe"))
        for _ in range(3):  # Llama Guard begins its answer with blank lines
            logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, -1].float()
            token = int(logits.argmax())
            if token in (yes, no) or tokenizer.decode([token]).strip():
                break
            ids = [*ids, token]
        unsafe = float(torch.softmax(logits[[yes, no]], dim=0)[0])
        if unsafe < _LEAST:
            return {}
        ids = [*ids, *tokenizer.encode("unsafe\n", add_special_tokens=False)]
        begun = torch.tensor([ids], device=device)
        made = model.generate(
            begun,
            attention_mask=torch.ones_like(begun),
            max_new_tokens=_LONGEST_ANSWER,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
        codes = re.findall(r"\w+", tokenizer.decode(made[0, len(ids) :]))
        return {self._card.labels[code]: unsafe for code in codes if code in self._card.labels}


def _tokenizer(folder: Path, card: GuardCard) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{folder}: the tokenizer of guard {card.name!r} cannot be loaded: {reason}") from error


def _untrusted(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a person's text, in which the names of special tokens are letters like any others."""
    ids: list[int] = tokenizer.encode(_unicode(text), add_special_tokens=False, split_special_tokens=True)
    return ids


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
