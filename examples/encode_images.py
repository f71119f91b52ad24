# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Encode the images of an .npz file with the encoder that VariationalAutoEncoder_tf2.py saved.

    python examples/encode_images.py data/mnist.npz --output codes.npz

Encodes x_train, x_val and x_test, one after the other. Writes arrays z_mean and z_log_sigma
(n, latent_dim), labels (n,), zeros if the file has none, and names (n,): those of the pictures if
prepare_data.py made the file, or else x_train[0] and so on.
"""

import common

parser = common.Parser(__doc__)
parser.add_argument("path", type=common.existing, metavar="FILE", help=".npz file of images")
parser.add_output("FILE", ".npz file to write")
parser.add_model_dir("models/vae", "encoder.keras")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    common.refuse_to_overwrite([options.output], options)
with common.quiet_imports():
    import numpy as np


def main(options):
    parts = common.image_parts(options.path)
    encoder = common.load_model(options.model_dir / "encoder.keras")
    shape = encoder.input_shape[1:]
    found = [common.read_images(options.path, part, shape) for part in parts]
    images = np.concatenate([images for images, _ in found])
    z_mean, z_log_sigma = encoder.predict(images, batch_size=500, verbose=0)
    codes = {"z_mean": z_mean, "z_log_sigma": z_log_sigma}
    codes["labels"] = np.concatenate([labels for _, labels in found])
    names = []
    for part, (_, labels) in zip(parts, found, strict=True):
        names += common.image_names(options.path, part, len(labels))
    codes["names"] = np.array(names)
    print(f"codes of {len(z_mean):,} images")
    with common.new_file(options.output) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **codes)


if __name__ == "__main__":
    main(options)
