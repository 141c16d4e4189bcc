"""Every field of a run: its type, bound, unit, default and meaning. configs/ overrides a few.

    python run.py --config isr_jax/config.py --config.data.train=folder:photos --workdir runs/mine

Trains SRGAN's setting at 4x (SRResNet and its discriminator, MSE + 1e-3 adversarial) on the images
of `data.train`. It is sized for a GPU or a TPU; configs/msssim.py is sized for a CPU.

Source: Ledig et al. 2017 (SRGAN), section 3.2: crops of 96 px, batches of 16, Adam with b1 = 0.9 at
1e-4, a tenth of it after half of the updates.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from isr_jax import errors
from isr_jax.models.discriminators import DISCRIMINATORS
from isr_jax.models.generators import GENERATORS


def get_config() -> ConfigDict:
    """Return the base configuration; comments give type, bound and unit, then the meaning."""
    config = ConfigDict()
    config.seed = 0  # int in [0, 2**32)
    config.scale = 4  # int; scale factor, one that the generator has

    config.data = ConfigDict()
    # samples | folder:PATH | pairs:HR:LR | pairs:SET | list:FILE | tfds:NAME[:SPLIT], or several
    config.data.train = FieldReference("samples", field_type=object)
    config.data.validation = FieldReference("samples", field_type=object)  # validation set
    config.data.weights = ()  # floats > 0; of each source of data.train, () for its images' number
    config.data.weight_by = "image"  # image: all alike | area: crops in proportion to the pixels
    # Float in [0, 1]; share of crops whose LR is an image's own, where it has one. None: 1 with
    # bicubic, else 0
    config.data.paired_share = placeholder(float)
    # Floats in (0, 1); every training image is there again at each of these times its size
    config.data.resized = ()
    config.data.validation_images = 0  # int >= 0; use the first so many, 0 for all
    config.data.tfds_dir = ""  # path; where TFDS keeps data sets, "" for TFDS's default
    # pool: all images on every device | sharded_pool: shared out among the devices | stream: Grain,
    # from disk, for what does not fit
    config.data.loader = "pool"
    config.data.workers = 0  # int >= 0; Grain's worker processes, 0 for none
    config.data.crop = 96  # int >= 1, HR pixels; side of a crop, divisible by scale
    config.data.batch = 16  # int >= 1; crops per update over all devices, divisible by their number
    config.data.degradation = "bicubic"  # bicubic | second_order (Real-ESRGAN's) | photo (milder)
    config.data.margin = 0  # int >= 0, HR pixels, divisible by scale; degraded, then cut away
    config.data.sharpen = False  # bool; sharpened targets, but not for the discriminator
    config.data.augment = ConfigDict()  # floats in [0, 1]; an example's chance, 0 for never
    config.data.augment.rgb = 0.0  # of another order of its colour channels
    config.data.augment.mixup = 0.0  # of being mixed with its neighbour in the batch
    config.data.augment.cutblur = 0.0  # of HR in a part of its LR image; scale 1 only

    # Every published one has channels: 1 trains on the luma of the images, for use on gray ones.
    config.generator = ConfigDict(GENERATORS["srresnet"])

    config.discriminator = ConfigDict(DISCRIMINATORS["classifier"])

    config.loss = ConfigDict()
    config.loss.content = ConfigDict()  # floats >= 0; weights, 0 leaves a loss out
    config.loss.content.mse = 1.0  # of squared units of [0, 1]
    config.loss.content.psnr = 0.0  # of negative dB
    config.loss.content.ssim = 0.0  # of 1 - SSIM
    config.loss.content.ms_ssim = 0.0  # of 1 - MS-SSIM
    config.loss.content.l1 = 0.0  # of units of [0, 1]
    config.loss.content.charbonnier = 0.0  # of units of [0, 1]
    config.loss.content.chroma = 0.0  # of Oklab's a and b; against shifts of colour
    config.loss.perceptual = ConfigDict()  # VGG19's features; see isr_jax.perceptual.vgg_loss
    config.loss.perceptual.weight = 0.0  # float >= 0; 0 leaves it out
    config.loss.perceptual.layers = ("conv5_4",)  # conv: before the activation, relu: after it
    config.loss.perceptual.layer_weights = (1.0,)  # floats; one per layer
    config.loss.perceptual.criterion = "l1"  # l1 | l2
    config.loss.perceptual.path = ""  # path; the weight file or its folder, "" for the cache
    config.loss.lpips = 0.0  # float >= 0; weight, of LPIPS's distance
    config.loss.lpips_network = "vgg"  # alex | vgg | squeeze; tables mostly score by alex
    config.loss.dists = 0.0  # float >= 0; weight, of DISTS
    config.loss.ldl = 0.0  # float >= 0; weight, of artifacts that the EMA's output does not have
    config.loss.lattice = 0.0  # float >= 0; weight, of errors that repeat in every LR pixel
    # With both of the following weights 0, no discriminator is trained.
    config.loss.adversarial_weight = 1e-3  # float >= 0; of the generator's adversarial loss
    config.loss.feature_matching = 0.0  # float >= 0; weight, of the discriminator's features
    config.loss.adversarial = "vanilla"  # vanilla | least_squares | hinge | relativistic
    config.loss.r1 = 0.0  # float >= 0; gamma, of the discriminator's squared gradient at photos
    # Float >= 0; the discriminator is not updated while its loss is below this, 0 for never so
    config.loss.d_pause = 0.0
    config.loss.adversarial_from = 0  # int >= 0, updates before the adversarial part joins in

    config.g_optimizer = ConfigDict()
    config.g_optimizer.name = "adam"  # adam | adamw | adan | schedule_free_adamw | muon
    config.g_optimizer.learning_rate = 1e-4  # float >= 0; the highest of the schedule
    # constant | cosine | halfway (a tenth from there) | milestones
    config.g_optimizer.schedule = "halfway"
    config.g_optimizer.milestones = ()  # ints, updates; from each the rate is multiplied by decay
    config.g_optimizer.decay = 0.5  # float >= 0
    config.g_optimizer.warmup_steps = 0  # int >= 0, updates of linear increase from 0
    config.g_optimizer.b1 = 0.9  # float in [0, 1); Adan was published with 0.98
    config.g_optimizer.b2 = 0.999  # float in [0, 1); Adan was published with 0.92
    config.g_optimizer.b3 = 0.99  # float in [0, 1); of Adan alone
    config.g_optimizer.momentum = 0.95  # float in [0, 1); of Muon's matrices alone
    config.g_optimizer.eps = 1e-8  # float > 0
    config.g_optimizer.weight_decay = 0.0  # float >= 0; of kernels, decoupled; not of adam
    config.g_optimizer.grad_clip = 0.0  # float >= 0; largest norm of the gradient, 0 for no limit
    config.d_optimizer = config.g_optimizer.copy_and_resolve_references()

    config.train = ConfigDict()
    config.train.steps = 200_000  # int >= 1, updates
    config.train.init_from = ""  # MODEL; whose EMA the generator is initialised from
    config.train.steps_per_dispatch = 100  # int >= 1, updates in one compiled program
    # Int >= 1; parts of a batch whose gradients are averaged, for batches that do not fit in memory
    config.train.accumulate = 1
    config.train.parallel = "jit"  # jit | pmap, over all devices
    config.train.ema_decay = 0.999  # float in [0, 1); of the EMA that is validated and restored
    config.train.ema_from = 0  # int >= 0, updates; until then the EMA is the parameters themselves
    config.train.log_every = 100  # int >= 1, updates; records hold their means
    config.train.validate_every = 5000  # int >= 1, updates
    config.train.checkpoint_every = 5000  # int >= 1, updates
    config.train.keep = 2  # int >= 1; latest checkpoints kept, besides the following
    # psnr | ssim | ms_ssim | one of validation_metrics, without its form: the best by it is kept,
    # and used | latest: PSNR would choose a GAN's first checkpoint
    config.train.keep_best = "psnr"
    config.train.keep_every = 0  # int >= 0, updates, divisible by checkpoint_every; 0 for none
    # niqe[:matlab | :pyiqa], lpips[:alex | :vgg | :squeeze], dists; scored besides psnr and ssims
    config.train.validation_metrics = ()
    # Int >= 0, HR pixels, divisible by scale; side of the centre that pictures show, 0 for all
    config.train.validation_crop = 0
    config.train.trackers = ("tensorboard",)  # tensorboard, wandb; besides metrics.jsonl
    return config.lock()


def small() -> ConfigDict:
    """Return a compact GAN for two CPU cores: minutes of training on the sample photos.

    The generator predicts a residual to the bicubic image: EDSR's blocks and one sub-pixel layer,
    equivariant, so that flat areas keep their colour.
    Crops of 176 px give MS-SSIM its five scales. No content loss has a weight yet.
    """
    config = get_config()
    config.data.crop = 176
    config.data.batch = 4

    config.generator.width = 32
    config.generator.blocks = 5
    config.generator.kernel = 3
    config.generator.activation = "relu"
    config.generator.batch_norm = False
    config.generator.head_activation = False
    config.generator.tail = "direct"
    config.generator.tail_activation = False
    config.generator.global_skip = "bicubic"
    config.generator.equivariant = True

    config.discriminator.crop = 64
    config.discriminator.widths = (16, 32, 64)
    config.discriminator.dense = 64
    config.discriminator.batch_norm = False

    config.loss.content.mse = 0.0

    config.g_optimizer.learning_rate = 1e-3
    config.g_optimizer.schedule = "cosine"
    config.g_optimizer.warmup_steps = 200
    config.d_optimizer.learning_rate = 1e-4
    config.d_optimizer.warmup_steps = 200

    config.train.steps = 2000
    config.train.steps_per_dispatch = 1
    config.train.log_every = 20
    config.train.validate_every = 400
    config.train.checkpoint_every = 200
    return config


def candidate(
    *,
    loss: Mapping[str, Any],
    g_optimizer: Mapping[str, Any] | None = None,
    d_optimizer: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Return a candidate of a study: a partial config, laid over the study's by `overlay`.

        candidate(loss={"content": {"l1": 1.0}}, g_optimizer={"learning_rate": 1e-3})

    A weight that `loss` does not name is 0, whatever it is in the study's config: a candidate says
    its loss in full. All other fields are the study's where they are not named; so is
    `g_optimizer.learning_rate`, whose None means the best of `study.learning_rates`.

    Args:
        loss: fields of `config.loss`.
        g_optimizer, d_optimizer: fields of these.
    """
    fields = ConfigDict(
        {
            "loss": {
                "content": dict.fromkeys(get_config().loss.content, 0.0),
                "perceptual": {"weight": 0.0},
                "lpips": 0.0,
                "dists": 0.0,
                "ldl": 0.0,
                "lattice": 0.0,
                "adversarial_weight": 0.0,
                "feature_matching": 0.0,
                "r1": 0.0,
                "d_pause": 0.0,
            },
            "g_optimizer": {"learning_rate": placeholder(float)},
        }
    )
    fields.update({"loss": loss, "g_optimizer": g_optimizer or {}})
    if d_optimizer:
        fields.d_optimizer = ConfigDict(d_optimizer)
    return fields


def overlay(config: ConfigDict, partial: ConfigDict) -> ConfigDict:
    """Return a copy of a config with the fields of a partial one; None leaves a field as it is.

    Raises:
        UserError: for an unknown field, naming the nearest, and for a value of another type.
    """
    changed = config.copy_and_resolve_references()
    known = flatten(config.to_dict())
    for name, value in flatten(partial.to_dict()).items():
        if name not in known:
            section = name.split(".")[0]
            near = [field for field in known if field.split(".")[0] == section]
            raise errors.unknown("field", name, near or config)
        if value is None:
            continue
        try:
            changed.update_from_flattened_dict({name: value})
        except TypeError:
            kind = type(known[name]).__name__
            raise errors.UserError(f"{name} is {value!r}; it must be of type {kind}") from None
    return changed


def with_study(config: ConfigDict, candidates: dict[str, ConfigDict]) -> ConfigDict:
    """Return a configuration with the fields of a loss study added to those of its runs.

    Every candidate is trained by `config` with its own fields laid over it (see `candidate`), and
    scored on `data.validation`; `data.loader` must be pool and `train.parallel` jit. A study has
    metrics of its own, and no trackers: `train.validation_metrics` and `train.trackers` are of
    single runs.
    """
    with config.unlocked():
        config.study = ConfigDict()
        config.study.candidates = ConfigDict(candidates)
        config.study.only = ()  # names of the candidates to study; () for all
        config.study.seeds = (0, 1, 2, 3, 4)  # distinct ints in [0, 2**32); they train at once
        # Two or more floats > 0; the generator's learning rates to begin with, further ones are
        # tried where the best is at the edge. () for g_optimizer.learning_rate as it is.
        config.study.learning_rates = (1e-3, 2e-3, 4e-3)
        # Two or more floats > 0; likewise of the adversarial part's weight, times a candidate's
        # loss.adversarial_weight. () for the weight as it is.
        config.study.adversarial_factors = (1 / 3, 1.0, 3.0)
        config.study.psnr_cost = 0.5  # float >= 0, dB of PSNR-Y; the most that a weight may cost
        config.study.widenings = 6  # int >= 0; the most values tried beyond the first ones
        # Int; updates of a tuning run, at least half of train.steps, 0 for half. The schedule is
        # shortened to them.
        config.study.tune_steps = 0
        # Int >= 2; so many of the last images of data.train score the tuning runs, and are left
        # out of training meanwhile.
        config.study.tune_images = 2
        config.study.together = "auto"  # auto | vmap | unroll, of the runs of one device
        config.study.lpips = "auto"  # auto | none | alex | vgg | squeeze; auto: alex if cached
        config.study.dists = "auto"  # auto: if its weights are cached | none | load: downloads them
        # auto: matlab if its model is cached | none | matlab | pyiqa
        config.study.niqe = "auto"
        config.study.pictures = 4  # int >= 0; validation images shown in the report
    return config.lock()


def flatten(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one of dotted names; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def sampled_crop(config: ConfigDict) -> int:
    """Return the side in HR pixels of what is cut from an image: a crop and its margin."""
    return config.data.crop + 2 * config.data.margin


def tuples(tree: Any) -> Any:
    """Return a tree with the lists that JSON has made of tuples as tuples again."""
    if isinstance(tree, Mapping):
        return {name: tuples(value) for name, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree


def from_saved(saved: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration of a run from its config.json.

    Fields that are newer than the run have their defaults.

    Raises:
        errors.UserError: it holds a field that does not exist, or a value of another type.
    """
    config = get_config().unlock()
    try:
        parts = {name: tuples(value) for name, value in saved.items()}
        for name in ("generator", "discriminator"):
            config[name] = ConfigDict(parts.pop(name))
        config.lock().update(parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.UserError(f"the saved config cannot be used: {error}") from error
    return config
