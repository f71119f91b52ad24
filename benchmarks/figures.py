# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
# ]
# ///
"""Animate how the latent plane forms during training, epoch by epoch.

    python examples/plane_forming.py

Trains the VAE of VariationalAutoEncoder_tf2.py, without saving it. Draws vae_forming.gif: after
each epoch, the codes of up to 3,000 test digits, coloured by class, beside the decoded plane.
"""

import functools
import statistics

import common

parser = common.Parser(__doc__)
parser.add_integer("--epochs", 1, 100, 12, "epochs, each a frame of the animation")
parser.add_integer("--limit", 20, 55000, 20000, "the first N training images")
parser.add_images_dir("images")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import keras
    import numpy as np
    from matplotlib.figure import Figure
vae_script = common.import_script()

SIDE = 12  # decoded tiles along each axis
BATCH_SIZE = 64
SEED = 0


class PlaneFrames(keras.callbacks.Callback):
    """Draws the latent plane after each epoch; `frames` are the RGB pictures."""

    def __init__(self, digits, labels):
        super().__init__()
        self.digits, self.labels = digits, labels  # (n, 28, 28, 1) in [0, 1], and (n,)
        self.frames = []

    def on_epoch_end(self, epoch, logs=None):
        codes, _ = self.model.encoder(self.digits)
        prior = statistics.NormalDist()
        quantiles = [prior.inv_cdf((step + 0.5) / SIDE) for step in range(SIDE)]
        grid = np.stack(np.meshgrid(quantiles, quantiles[::-1]), axis=-1)
        logits = self.model.decoder_logits(grid.reshape(-1, 2))
        tiles = np.reshape(keras.ops.sigmoid(logits), (SIDE, SIDE, 28, 28))
        image_grid = tiles.swapaxes(1, 2).reshape(SIDE * 28, SIDE * 28)
        figure = Figure(figsize=(8.4, 4.5), layout="constrained")
        figure.suptitle(f"The latent plane after epoch {epoch + 1}")
        points, plane = figure.subplots(1, 2)
        classes = {"c": self.labels, "cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
        scatter = points.scatter(*np.transpose(codes), s=2, linewidths=0, **classes)
        key = scatter.legend_elements(num=None)  # one entry for each class
        figure.legend(*key, ncols=10, loc="outside lower center", handletextpad=0, columnspacing=1)
        points.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="z[0]", ylabel="z[1]")
        points.set_title(f"z_mean of {len(codes):,} test digits, coloured by class", fontsize=10)
        points.set_aspect("equal")
        plane.set_title("the plane decoded, at quantiles of the prior", fontsize=10)
        plane.imshow(image_grid, cmap="gray", vmin=0, vmax=1)
        plane.set_axis_off()
        self.frames.append(common.frame_of(figure, dpi=90))


def train_batches(images, options):
    """Return the batches of a default training of the script, and the steps of an epoch."""
    size = min(BATCH_SIZE, len(images))
    batches = vae_script.train_batches(images, size, SEED, 0, options.epochs)
    is_mixed = vae_script.sizes_of(2).is_mixed
    make_batch = functools.partial(vae_script.vae_batch, latent_dim=2, is_mixed=is_mixed)
    return batches.map(make_batch), len(images) // size


def main(options):
    arrays = vae_script.load_arrays("mnist")
    train, _, test, labels = vae_script.split_images(arrays, "mnist", options.limit)
    plane = PlaneFrames(test[:3000] / 255, labels[:3000])
    batches, steps = train_batches(train, options)
    with vae_script.global_settings(SEED, bfloat16=False):
        rate = vae_script.learning_rate(vae_script.LEARNING_RATE, options.epochs * steps)
        vae = vae_script.build_vae(train, 2, 1.0, rate)
        settings = {"epochs": options.epochs, "steps_per_epoch": steps, "shuffle": False}
        vae.fit(batches.prefetch(4), callbacks=[plane], verbose=2, **settings)
    durations = [800] * (options.epochs - 1) + [3000]  # ms
    path = options.images_dir / "vae_forming.gif"
    common.save_animation(path, plane.frames, durations)


if __name__ == "__main__":
    main(options)
