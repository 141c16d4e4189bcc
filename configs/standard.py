r"""The pretrained models of best PSNR: standard, of 0.7 million parameters, by L1 only.

    python run.py --config configs/standard.py \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS
    python run.py --config configs/standard.py:x2 \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS
    isr export runs/standard standard-x4.safetensors --dtype float16

The first is for 4x; :x2, or :x3, is initialised from it. PHOTOGRAPHS has the folders BSD400 and
T91, of which configs/photographs/train.txt leaves out 40 photos for validation, one that is also in
Set5, and one that is there twice.

Chosen by `python -m benchmarks.budget`: what networks gain over bicubic interpolation on these 40
in four minutes of training, in dB, and how far they are ahead of the first, with a 95% interval
(JAX 0.12.0, two cores of an AMD EPYC, 8 crops unless said):

    width x blocks, optimizer      parameters   ms/update   gain    ahead
    64 x 8, Adam, rate 2e-3           656,064        204   +0.97
    64 x 8, Adam, rate 4e-3           656,064        226   +0.92   -0.046 [-0.058, -0.034]
    64 x 8, Muon, rate 1e-3           656,064        215   +1.01   +0.039 [+0.027, +0.050]
    64 x 8, Muon, rate 2e-3           656,064        243   +1.03   +0.064 [+0.045, +0.082]
    64 x 8, Muon, rate 4e-3           656,064        219   +0.98   +0.010 [+0.001, +0.018]
    64 x 8, Muon, 4 crops             656,064        122   +1.02   +0.048 [+0.033, +0.063]
    64 x 8, Muon, HR convolution      702,360        274   +1.02   +0.055 [+0.038, +0.072]
    48 x 14, Muon                     623,376        242   +1.04   +0.069 [+0.050, +0.088]
      4 crops of 48x48 LR pixels      623,376        280   +1.02   +0.047 [+0.030, +0.065]
      images at more sizes            623,376        244   +1.04   +0.071 [+0.053, +0.089]
    SPAN, width 48, Muon            1,840,488        231   +0.82   -0.151 [-0.187, -0.116]

In so short a time an HR convolution gains nothing, and it does not help a GAN of the generator:
after 1,000 updates of configs/gan.py, that of one with an HR convolution after 8 rectified channels
has a NIQE of 4.81 and rows of dots, and that of this one 3.85 without them; the 20 photos 3.29.
"""

from ml_collections import ConfigDict

from configs import compact


def get_config(variant: str = "") -> ConfigDict:
    """Return compact's config with more and wider blocks, and Muon."""
    config = compact.get_config(variant)
    config.generator.width = 48
    config.generator.blocks = 14
    config.g_optimizer.name = "muon"
    if variant:
        config.train.init_from = "standard-x4"
    else:
        config.train.steps = 15_000
        config.train.validate_every = 2500
    return config
