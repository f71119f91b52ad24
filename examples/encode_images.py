# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3"]
# ///
"""Encode the images of an .npz file with the encoder that VariationalAutoEncoder_tf2.py saved.

    python examples/encode_images.py data/mnist.npz --output codes.npz

Encodes x_train and then x_test. Writes arrays z_mean and z_log_sigma (n, latent_dim) and, if the
file has them, the labels (n,).
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
    arrays = common.read_npz(options.path)
    parts = [part for part in ("train", "test") if f"x_{part}" in arrays]
    if not parts:
        common.fail(f"{options.path} has no array x_train or x_test")
    encoder = common.load_model(options.model_dir / "encoder.keras")
    shape = encoder.input_shape[1:]
    images = [common.read_images(options.path, part, shape)[0] for part in parts]
    z_mean, z_log_sigma = encoder.predict(np.concatenate(images), batch_size=500, verbose=0)
    codes = {"z_mean": z_mean, "z_log_sigma": z_log_sigma}
    if all(f"y_{part}" in arrays for part in parts):
        codes["labels"] = np.concatenate([arrays[f"y_{part}"] for part in parts])
    print(f"codes of {len(z_mean):,} images")
    with common.new_file(options.output) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **codes)


if __name__ == "__main__":
    main(options)
