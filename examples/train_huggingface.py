"""The Trainer of Hugging Face transformers on sentences made here, recorded with one callback; nothing is downloaded.

keepsake init -y
python train_huggingface.py --learning-rate 0.003
keepsake ls
"""

import argparse
import random

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

from keepsake.integrations.huggingface import KeepsakeCallback

GOOD, BAD, PLAIN = ("good", "fine", "bright"), ("bad", "dull", "grim"), ("a", "day", "the", "book", "was", "it", "and", "so")
WORDS = {word: number for number, word in enumerate((*PLAIN, *GOOD, *BAD), start=1)}


class Sentences(torch.utils.data.Dataset):
    """Sentences of eight words, and whether more of them are good than bad."""

    def __init__(self, size: int, seed: int) -> None:
        draw = random.Random(seed)
        self.sentences = [[draw.choice(list(WORDS)) for _ in range(8)] for _ in range(size)]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, list[int] | int]:
        words = self.sentences[index]
        score = sum((word in GOOD) - (word in BAD) for word in words)
        return {"input_ids": [WORDS[word] for word in words], "attention_mask": [1] * len(words), "labels": int(score > 0)}


def accuracy(predictions: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    logits, labels = predictions
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    set_seed(0)
    # A model of its own, as small as the task.
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(WORDS) + 1, max_position_embeddings=16, **sizes)
    trainer = Trainer(
        BertForSequenceClassification(config),
        TrainingArguments(
            output_dir="checkpoints",
            learning_rate=args.learning_rate,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=32,
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_steps=10,
            metric_for_best_model="eval_loss",
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Sentences(1000, seed=1),
        eval_dataset=Sentences(200, seed=2),
        compute_metrics=accuracy,
        callbacks=[KeepsakeCallback(params={"learning_rate": args.learning_rate})],
    )
    trainer.train()


if __name__ == "__main__":
    main()
