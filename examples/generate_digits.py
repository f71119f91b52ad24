# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11", "matplotlib>=3.10,<4",
#     "scikit-learn>=1.6,<2",
# ]
# ///
"""Write new digits as PNG files: samples of the model that VariationalAutoEncoder_tf2.py saved.

    python examples/generate_digits.py --count 100 --output new

Each picture is decoded from a random point z of the latent space, drawn from the prior N(0, I).
With more than two dimensions the codes of images fill only a part of it, and other points give
blots. `--from-data FILE` draws from where the codes of the training images x_train are, by a
mixture of Gaussian distributions, and writes prior_and_data.png: some samples of both kinds.
"""

import common

parser = common.Parser(__doc__)
parser.add_integer("--count", 1, 10**7, 16, "number of pictures")
text = "file of the training images, to draw from their codes in place of the prior"
parser.add_argument("--from-data", type=common.existing, metavar="FILE", help=text)
parser.add_output("DIR", "folder for the pictures")
parser.add_integer("--seed", 0, 2**31 - 1, 0, "seed of the samples")
parser.add_model_dir("models/vae", "decoder.keras")

COMPONENTS = 50  # of the mixture
IMAGES = 20_000  # to fit it to, at most: 400 for a component


def sample_paths(options):
    """Return the files of the samples."""
    digits = len(str(options.count))
    numbers = range(1, options.count + 1)
    return [options.output / f"sample-{number:0{digits}}.png" for number in numbers]


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    targets = sample_paths(options)
    if options.from_data:
        common.need_models(options.model_dir, ["encoder.keras"])
        targets.append(options.output / "prior_and_data.png")
    common.refuse_to_overwrite(targets, options)
with common.quiet_imports():
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image


def fit_mixture(encoder, path, seed):
    """Return a mixture fitted to draws of z (n, latent_dim) from q(z|x), one for each image."""
    with common.quiet_imports():
        from sklearn.mixture import GaussianMixture

    images, _ = common.read_images(path, "train", encoder.input_shape[1:])
    draw = np.random.default_rng(seed)
    if len(images) < 10:
        common.fail(f"{path}: {len(images)} images in x_train; accepted: 10 or more")
    images = images[draw.permutation(len(images))[:IMAGES]]
    z_mean, z_log_sigma = encoder.predict(images, batch_size=500, verbose=0)
    z = z_mean + np.exp(z_log_sigma) * draw.normal(size=z_mean.shape)
    components = max(1, min(COMPONENTS, len(z) // (4 * z.shape[1])))  # each needs some images
    return GaussianMixture(components, reg_covar=1e-3, random_state=seed).fit(z)


def decode(decoder, z):
    """Return images (n, height, width, channels) in [0, 1]."""
    return decoder.predict(z, batch_size=500, verbose=0)


def draw_both(path, decoder, prior, data):
    """Draw 2 x 20 samples of the prior above as many of the codes of the training images."""
    images = decode(decoder, np.concatenate([prior[:40], data[:40]]))
    rows = images.reshape(4, -1, *images.shape[1:])
    figure = Figure(figsize=(0.5 * rows.shape[1] + 1, 2.6), layout="constrained")
    axes = figure.add_subplot(title="Samples, and where their z is from", frame_on=False)
    common.draw_image_rows(axes, rows, ["prior", "", "codes of data", ""])
    with common.new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150, bbox_inches="tight")


def main(options):
    decoder = common.load_model(options.model_dir / "decoder.keras")
    count = max(40, options.count)
    draw = np.random.default_rng(options.seed)
    z = draw.normal(size=(count, *decoder.input_shape[1:]))
    if options.from_data:
        encoder = common.load_model(options.model_dir / "encoder.keras")
        mixture = fit_mixture(encoder, options.from_data, options.seed)
        by_component, _ = mixture.sample(count)
        prior = z
        z = draw.permutation(by_component)
        draw_both(options.output / "prior_and_data.png", decoder, prior, z)
    images = np.uint8(np.rint(255 * decode(decoder, z[: options.count])))
    for target, image in zip(sample_paths(options), images, strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        with common.new_file(target) as unfinished:
            picture.save(unfinished)


if __name__ == "__main__":
    main(options)
