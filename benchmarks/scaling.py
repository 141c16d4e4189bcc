"""Weak scaling over devices, bytes moved per update, and the efficiency projected from them.

    python -m benchmarks.scaling [--rounds N] [--tflops T] [--node GB] [--network GB] [--largest N]

Each number of virtual CPU devices is a process of its own, with two examples per device. Virtual
devices share the cores, so that their time shows what splitting costs, not what it gains. The bytes
are those of the collectives in the compiled program. The projection is for a published ESRGAN
update, 16 examples per device, and assumes that no communication overlaps with computation:

    efficiency = compute / (compute + 2 (n - 1) / n * bytes / bandwidth)

for a ring over n devices, where compute is the program's floating-point operations by a rate.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from statistics import median
from typing import Any, NamedTuple

from benchmarks import timing

_COLLECTIVE = re.compile(
    r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all)(?:-start)?\("
)
_ARRAY = re.compile(r"(f32|bf16|s32|u32|u8|pred)\[([\d,]*)\]")
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "u8": 1, "pred": 1}


class Measured(NamedTuple):
    """Of one number of devices: seconds of an update, bytes of collectives, GFLOP per device."""

    seconds: float
    bytes: int
    gflop: float


def moved(text: str) -> int:
    """Return the bytes that the collectives of a compiled program put out."""
    total = 0
    for shapes in _COLLECTIVE.findall(text):
        for kind, sides in _ARRAY.findall(shapes):
            count = 1
            for side in filter(None, sides.split(",")):
                count *= int(side)
            total += count * _BYTES[kind]
    return total


def measure(name: str, per_device: int, crop: int, rounds: int) -> Measured:
    """Compile the update of a config for all devices of this process, and time it."""
    import jax

    from benchmarks.cases import published
    from isr_jax.training.loaders import open_loader
    from isr_jax.training.program import make_draw as draw_from_pool
    from isr_jax.training.program import make_program, make_steps, on_all, run_keys

    devices = jax.devices()
    config = published(name)
    config.data.batch, config.data.crop = per_device * len(devices), crop
    if name == "msssim":
        config.discriminator.crop = min(crop, config.discriminator.crop)
    program, everywhere = make_program(config), on_all(devices)
    draw = draw_from_pool(config, batch=config.data.batch)

    def split(*arguments: Any) -> Any:
        return jax.lax.with_sharding_constraint(draw(*arguments), on_all(devices, axis="devices"))

    steps = make_steps(config, program.update, split)

    def run(state: Any, inputs: Any, key: Any) -> Any:
        return steps(state, inputs, key, 0, n=1, adversarial=True)

    inputs = open_loader(config, devices, warn=print).take(1)
    init_key, key = run_keys(0)
    state = jax.device_put(program.init(init_key), everywhere)
    compiled = jax.jit(run, out_shardings=everywhere).lower(state, inputs, key).compile()
    costs: Any = compiled.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    seconds = []
    for _ in range(rounds + 1 if rounds else 0):
        start = time.perf_counter()
        jax.block_until_ready(compiled(state, inputs, key))
        seconds.append(time.perf_counter() - start)
    taken = median(seconds[1:]) if seconds else 0.0
    return Measured(taken, moved(compiled.as_text() or ""), costs["flops"] / 1e9)


def of_devices(count: int, *arguments: Any) -> Measured:
    """Measure in a process with so many virtual devices."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", json.dumps(arguments)]
    surroundings = {**os.environ, "JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu"}
    surroundings.pop("XLA_FLAGS", None)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=surroundings, check=True)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print two Markdown tables."""
    parser = timing.parser(__doc__, rounds=5)
    parser.add_argument(
        "--tflops", type=float, default=100.0, help="rate of a device; default: 100"
    )
    parser.add_argument("--node", type=float, default=200.0, help="GB/s in a host; default: 200")
    parser.add_argument("--network", type=float, default=25.0, help="GB/s per device; default: 25")
    parser.add_argument("--largest", type=int, default=8, help="number of devices; default: 8")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*json.loads(options.child))))
        return
    timing.print_machine()
    print("| devices | examples | ms per update | ms per example | MB moved |")
    print("|---:|---:|---:|---:|---:|", flush=True)
    count = 1
    while count <= options.largest:
        one = of_devices(count, "msssim", 2, 96, options.rounds)
        ms = 1e3 * one.seconds
        print(
            f"| {count} | {2 * count} | {ms:.0f} | {ms / 2 / count:.1f} | {one.bytes / 1e6:.2f} |"
        )
        count *= 2
    one = of_devices(2, "ESRGAN-23", 1, 128, 0)
    gflop = 16 * one.gflop
    compute = gflop / (options.tflops * 1e3)
    print(
        f"\nESRGAN-23, 16 crops of 128 px per device: {gflop / 1e3:.1f} TFLOP, "
        f"{one.bytes / 1e6:.0f} MB moved; {options.tflops:g} TFLOP/s per device\n"
    )
    print("| devices | bandwidth, GB/s | communication, ms | computation, ms | efficiency |")
    print("|---|---:|---:|---:|---:|")
    for title, n, bandwidth in (
        ("8 on one host", 8, options.node),
        ("512 on 64 hosts", 512, options.network),
    ):
        sent = 2 * (n - 1) / n * one.bytes / (bandwidth * 1e9)
        print(
            f"| {title} | {bandwidth:g} | {1e3 * sent:.1f} | {1e3 * compute:.0f} "
            f"| {100 * compute / (compute + sent):.1f}% |"
        )


if __name__ == "__main__":
    main()
