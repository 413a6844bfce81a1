"""Lightning with a ModelCheckpoint, recorded by keepsake's logger; started again after it was stopped, it goes on.

keepsake init -y
python train_lightning_logger.py --max-epochs 5
python train_lightning_logger.py --max-epochs 8 --resume 4591273   # the ID that keepsake ls shows
keepsake ls
"""

import argparse
import logging
import warnings

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from train_lightning import Digits, loaders

import keepsake
from keepsake.integrations.lightning import KeepsakeLogger


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--max-epochs", type=int, default=5)
    parser.add_argument("--resume", help="the ID of the experiment to go on with")
    args = parser.parse_args()

    warnings.filterwarnings("ignore", module=r"lightning\..*")  # about worker counts, and of its own making
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(0, verbose=False)
    # The files to go on from, out of the repository; a directory of Lightning's own would do as well.
    latest = keepsake.latest_checkpoint_path(keepsake.experiments.get(args.resume), "resumed") if args.resume else None
    trainer = lightning.Trainer(
        max_epochs=args.max_epochs,
        accelerator="cpu",
        # All that is logged, at each step, and each file that the ModelCheckpoint saves.
        logger=KeepsakeLogger(resume=args.resume, log_model="all"),
        callbacks=[ModelCheckpoint(monitor="val_loss", save_top_k=2, save_last=True)],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(learning_rate=args.learning_rate), *loaders(), ckpt_path=latest)


if __name__ == "__main__":
    main()
