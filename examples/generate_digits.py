# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11"]
# ///
"""Write new digits as PNG files: samples of the model that VariationalAutoEncoder_tf2.py saved.

    python examples/generate_digits.py --count 100 --output new

Each picture is decoded from a random point of the latent space, drawn from the prior N(0, I).
"""

import common

parser = common.Parser(__doc__)
parser.add_integer("--count", 1, 10**7, 16, "number of pictures")
parser.add_output("DIR", "folder for the pictures")
parser.add_integer("--seed", 0, 2**31 - 1, 0, "seed of the samples")
parser.add_model_dir("models/vae", "decoder.keras")


def targets(options):
    """Return the files to write."""
    digits = len(str(options.count))
    numbers = range(1, options.count + 1)
    return [options.output / f"sample-{number:0{digits}}.png" for number in numbers]


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    common.refuse_to_overwrite(targets(options), options)
with common.quiet_imports():
    import numpy as np
    from PIL import Image


def main(options):
    decoder = common.load_model(options.model_dir / "decoder.keras")
    z = np.random.default_rng(options.seed).normal(size=(options.count, *decoder.input_shape[1:]))
    images = np.uint8(np.rint(255 * decoder.predict(z, batch_size=500, verbose=0)))
    for target, image in zip(targets(options), images, strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        with common.new_file(target) as unfinished:
            picture.save(unfinished)


if __name__ == "__main__":
    main(options)
