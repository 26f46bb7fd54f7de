"""What a careful Keras user writes; ``mypy --strict`` reads it (Keras itself has no types) and a test runs it."""
# ruff: noqa: T201

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from numpy.typing import NDArray

import nearfar as nf
from nearfar.keras import Loss


def compiled(loss: nf.PairLoss, form: str = "labels") -> keras.Model:
    """A linear model with a loss of nearfar."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss=Loss(loss, form=form, ignore_label=None))
    return model


def main() -> list[float]:
    """Training on labels; a loss saved and made again."""
    rng = np.random.default_rng(0)
    x: NDArray[np.float32] = rng.normal(size=(24, 6)).astype("float32")
    y: NDArray[np.int64] = np.arange(24) // 6
    model = compiled(nf.SupConLoss(temperature=0.2))
    history = model.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0)
    values: list[float] = [float(value) for value in history.history["loss"]]
    wrapped = Loss(nf.ContrastiveLoss(margin=1.0), form="distances")
    again: Loss = Loss.from_config(wrapped.get_config())
    distances, same = np.asarray([[0.5], [0.8]], "float32"), np.asarray([1, 0])
    values.append(float(again(same, distances)))
    try:
        Loss(nf.SupConLoss(), form="distances")
    except nf.InputError as error:
        print(f"as it should: {error}")
    return values


if __name__ == "__main__":
    print(main())
