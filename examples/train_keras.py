"""Keras on scikit-learn's digits, recorded with one callback; with TensorFlow, JAX or PyTorch, as KERAS_BACKEND says.

keepsake init -y
python train_keras.py --learning-rate 0.01
keepsake ls
"""

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keepsake.integrations.keras import KeepsakeCallback


def build(learning_rate: float, hidden_dim: int) -> keras.Model:
    layers = [keras.Input((64,)), keras.layers.Dense(hidden_dim, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-dim", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    digits = load_digits()
    train_x, val_x, train_y, val_y = train_test_split(digits.data / 16, digits.target, test_size=0.25, random_state=0)
    build(args.learning_rate, args.hidden_dim).fit(
        train_x,
        train_y,
        batch_size=64,
        epochs=args.epochs,
        validation_data=(val_x, val_y),
        callbacks=[KeepsakeCallback(params=args, primary_metric=("val_loss", "minimize"))],
        verbose=0,
    )


if __name__ == "__main__":
    main()
