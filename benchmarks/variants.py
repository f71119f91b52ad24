"""Runs a script with another model, or on binarized digits.

    python benchmarks/variants.py small VariationalAutoEncoder_tf2 --seed 1

After the name of a variant and of a script come the script's own options. A variant replaces
functions of the script before it starts; all else, from the data to the metrics, is the script's.
"""

import math
import sys

from training import load

NARROWER = 4  # the small VAE has a quarter of the channels and units of
WIDER = 32  # filters in the first layer of the encoder, to be nearly of the example's size
FILTERS = 11  # of the small denoiser's first layer
OWN_SECONDS = 300  # of training on own pictures
DIVERGED = 1e9  # nats, in place of infinity or NaN, which would end a run


# ---- At most as many parameters as the Keras examples --------------------------------------------


def narrower(layer):
    """Return a new layer with a quarter of the channels or units; those of outputs stay."""
    config = layer.get_config()
    for name in ("filters", "units"):
        if config.get(name, 0) > 2:
            config[name] //= NARROWER
    if "target_shape" in config:
        height, width, channels = config["target_shape"]
        config["target_shape"] = (height, width, channels // NARROWER)
    return layer.from_config(config)


def small_vae(script):
    build_encoder, build_decoder = script.build_encoder, script.build_decoder
    clone_model, sizes_of = script.keras.models.clone_model, script.sizes_of

    def wider_sizes(*arguments):
        sizes = sizes_of(*arguments)
        sizes.encoder_filters = WIDER
        return sizes

    def build_small_encoder(shape, latent_dim, pixel_mean):
        encoder = clone_model(build_encoder(shape, latent_dim), None, narrower)
        first = encoder.get_layer("conv0")  # starts as in the script
        first.bias.assign(-pixel_mean * script.keras.ops.sum(first.kernel, axis=(0, 1, 2)))
        return encoder

    def build_small_decoder(*arguments):
        return clone_model(build_decoder(*arguments), None, narrower)

    script.sizes_of = wider_sizes
    script.build_encoder, script.build_decoder = build_small_encoder, build_small_decoder


def small_denoiser(script):
    def num_filters(channels):
        return FILTERS

    script.num_filters = num_filters


def small(script):
    is_denoiser = hasattr(script, "build_denoiser")
    (small_denoiser if is_denoiser else small_vae)(script)


# ---- Binarized digits ----------------------------------------------------------------------------


def binarized_once(script, images):
    """Return uint8 images with each pixel drawn as 0 or 255, always in the same way."""
    draw = script.np.random.default_rng(0)
    return script.np.uint8(255 * (draw.random(images.shape) < images / 255))


def binarized(script):
    """Binarize training and validation digits anew in every batch, test digits once."""
    tf, vae_batch, split_images = script.tf, script.vae_batch, script.split_images

    def binary_batch(images, seed, latent_dim, **_):
        pixel_seed, epsilon_seed = tf.unstack(tf.random.split(seed))
        draws = tf.random.stateless_uniform(tf.shape(images), pixel_seed)
        return vae_batch(tf.cast(draws < images, tf.float32), epsilon_seed, latent_dim)

    def split_binarized(*arguments):
        train, validation, test, labels = split_images(*arguments)
        return train, validation, binarized_once(script, test), labels

    script.vae_batch, script.split_images = binary_batch, split_binarized


# ---- Models of others ----------------------------------------------------------------------------


def example_vae(script, shape, latent_dim):
    """Return encoder and decoder of https://keras.io/examples/generative/vae/"""
    keras, layers = script.keras, script.layers
    settings = {"strides": 2, "padding": "same", "activation": "relu"}
    height, width = (side // 4 for side in shape[:2])  # 7, 7
    x = image = keras.Input(shape)
    x = layers.Conv2D(32, 3, **settings)(x)
    x = layers.Conv2D(64, 3, **settings)(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    # The example's layer gives log sigma^2; ours is half of that.
    encoder = keras.Model(image, [layers.Dense(latent_dim)(x), 0.5 * layers.Dense(latent_dim)(x)])
    x = z = keras.Input((latent_dim,))
    x = layers.Dense(height * width * 64, activation="relu")(x)
    x = layers.Reshape((height, width, 64))(x)
    x = layers.Conv2DTranspose(64, 3, **settings)(x)
    x = layers.Conv2DTranspose(32, 3, **settings)(x)
    return encoder, keras.Model(z, layers.Conv2DTranspose(shape[2], 3, padding="same")(x))


def five_level_vae(script, shape, latent_dim):
    """Return encoder and decoder like vanilla_vae.py of AntixK/PyTorch-VAE (commit 2946d7a).

    https://github.com/AntixK/PyTorch-VAE; logits are in place of its tanh.
    """
    keras, layers = script.keras, script.layers
    strided = {"strides": 2, "padding": "same"}

    def level(layer, x):
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(layer(x))  # as in PyTorch
        return layers.LeakyReLU(negative_slope=0.01)(x)

    x = image = keras.Input(shape)
    for filters in (32, 64, 128, 256, 512):
        x = level(layers.Conv2D(filters, 3, **strided), x)
    size = x.shape[1:]
    x = layers.Flatten()(x)
    encoder = keras.Model(image, [layers.Dense(latent_dim)(x), 0.5 * layers.Dense(latent_dim)(x)])
    x = z = keras.Input((latent_dim,))
    x = layers.Reshape(size)(layers.Dense(math.prod(size))(x))
    for filters in (256, 128, 64, 32, 32):
        x = level(layers.Conv2DTranspose(filters, 3, **strided), x)
    return encoder, keras.Model(z, layers.Conv2D(shape[2], 3, padding="same")(x))


def example_denoiser(script):
    """Return encoder and model of https://keras.io/examples/vision/autoencoder/"""
    keras, layers = script.keras, script.layers
    settings = {"padding": "same", "activation": "relu"}
    x = image = keras.Input((28, 28, 1))
    for _ in range(2):
        x = layers.Conv2D(32, 3, **settings)(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    encoder = keras.Model(image, x)
    for _ in range(2):
        x = layers.Conv2DTranspose(32, 3, strides=2, **settings)(x)
    return encoder, keras.Model(image, layers.Conv2D(1, 3, padding="same")(x))


def use_vae(script, build, rate, decay, batch_size):
    """Let a script train another VAE by Adam, whose rate falls by a factor after each epoch."""
    vae_batch = script.vae_batch

    def build_vae(train, latent_dim, beta, _):
        vae = script.VAE(*build(script, train.shape[1:], latent_dim), beta)
        steps = max(1, len(train) // batch_size)
        schedules = script.keras.optimizers.schedules
        schedule = schedules.ExponentialDecay(rate, steps, decay, staircase=True)
        vae.compile(script.keras.optimizers.Adam(schedule))
        return vae

    def plain_batch(images, seed, latent_dim, **_):  # without what the script adds in training
        return vae_batch(images, seed, latent_dim)

    script.build_vae, script.vae_batch = build_vae, plain_batch


def use_all_digits(script):
    """Train on all 60,000 digits, and report the test digits after every epoch and the last."""
    split_images = script.split_images

    def split_all(*arguments):
        train, validation, test, labels = split_images(*arguments)
        return script.np.concatenate([train, validation]), test, test, labels

    def keep_last_weights(run):
        pass

    script.split_images = split_all
    script.TrainingRun.load_best_weights = keep_last_weights


def keras_vae(script):
    use_vae(script, example_vae, 1e-3, 1.0, 128)
    use_all_digits(script)


def keras_denoiser(script):
    def build_denoiser(clean, rate):
        encoder, model = example_denoiser(script)
        metrics = [script.keras.metrics.MeanMetricWrapper(script.psnr, name="psnr")]
        optimizer = script.keras.optimizers.Adam(1e-3)
        model.compile(optimizer, loss=script.loss_of(1), metrics=metrics)
        return encoder, model

    script.build_denoiser = build_denoiser
    script.augmented_batch = script.noisy_batch  # no mosaics
    use_all_digits(script)


def stop_by_the_clock(script):
    """End a training after the epoch in which its time is over."""
    on_epoch_end = script.TrainingRun.on_epoch_end

    def on_epoch_end_by_the_clock(run, epoch, logs=None):
        for name, value in logs.items():
            logs[name] = value if math.isfinite(value) else DIVERGED
        on_epoch_end(run, epoch, logs)
        run.model.stop_training = run.seconds >= OWN_SECONDS

    script.TrainingRun.on_epoch_end = on_epoch_end_by_the_clock


def own_keras_vae(script):
    use_vae(script, example_vae, 1e-3, 1.0, 128)
    stop_by_the_clock(script)


def own_five_level_vae(script):
    use_vae(script, five_level_vae, 5e-3, 0.95, 144)  # as published
    stop_by_the_clock(script)


VARIANTS = {
    "small": small,
    "binarized": binarized,
    "keras-vae": keras_vae,
    "keras-denoiser": keras_denoiser,
    "own-keras-vae": own_keras_vae,
    "own-five-level-vae": own_five_level_vae,
}


def main(name, script_name, *arguments):
    script = load(script_name)
    VARIANTS[name](script)
    script.main(script.parse_options([*arguments]))


if __name__ == "__main__":
    main(*sys.argv[1:])
