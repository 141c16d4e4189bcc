"""From images on a disk to batches of crops.

`sources` finds and decodes photographs; `pool` keeps them all in device memory and cuts crops
inside jit; `stream` cuts them on the host, for what does not fit.
"""
