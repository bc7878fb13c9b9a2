"""Fixtures shared by all tests: a home of their own, one thread, no network, and small real models."""

from __future__ import annotations

import os

# Before torch is imported anywhere, and inherited by child processes: tests measure behaviour, not speed, and several
# runs may share a machine. Hugging Face's libraries must not even try the network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import json
import signal
from pathlib import Path

import pytest

# A run in the background of a script ignores Ctrl-C, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = (
    "the a red blue green circle square triangle moves left right up down what colour is it video clip ###Human: ###AI:"
)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty GPT4VIDEO_HOME for each test, so that none reads or writes the user's files."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("GPT4VIDEO_HOME", str(home))
    return home


def write_tiny_language(folder: Path, *, seed: int = 0, width: int = 64) -> Path:
    """A LLaMA folder as transformers writes it: 2 random layers, a byte-level BPE vocabulary of about 330, context 512.

    The weights are drawn wide (0.15), so that greedy choices are not near ties that rounding could turn.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 10, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_tiny_adapter(language: Path, folder: Path, *, seed: int = 0, trained: bool = True) -> Path:
    """A PEFT LoRA folder of rank 4 for the model in ``language``; B is zero, as before training, unless ``trained``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(language),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    if trained:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_language_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA folder with random weights, width 64. Do not change it: all tests share it."""
    return write_tiny_language(tmp_path_factory.mktemp("language") / "llama")


@pytest.fixture(scope="session")
def tiny_adapter_folder(tmp_path_factory: pytest.TempPathFactory, tiny_language_folder: Path) -> Path:
    """A LoRA adapter with random weights for ``tiny_language_folder``."""
    return write_tiny_adapter(tiny_language_folder, tmp_path_factory.mktemp("adapter") / "lora")


@pytest.fixture(scope="session")
def language_writer():  # type: ignore[no-untyped-def]
    """``write_tiny_language`` for tests that need a folder of their own."""
    return write_tiny_language


@pytest.fixture(scope="session")
def adapter_writer():  # type: ignore[no-untyped-def]
    """``write_tiny_adapter`` for tests that need a folder of their own."""
    return write_tiny_adapter


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder with random weights and an adapter. Do not change it: all tests share it."""
    from gpt4video_cli.model.random_model import write_random_model

    return write_random_model(tmp_path_factory.mktemp("model") / "random", adapter=True)
