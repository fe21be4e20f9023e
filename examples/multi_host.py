"""The training of ``many_devices.py`` over the devices of several processes.

Two processes on one machine, each with a device made of the CPU:

    python examples/multi_host.py --devices 1 --coordinator localhost:1234 \
        --processes 2 --process 0 &
    python examples/multi_host.py --devices 1 --coordinator localhost:1234 \
        --processes 2 --process 1

GPUs under SLURM, a process for each node, and a TPU pod, where JAX finds the others by
itself:

    srun --ntasks-per-node=1 python examples/multi_host.py --output /shared/run
    gcloud compute tpus tpu-vm ssh NAME --worker=all \
        --command="python examples/multi_host.py --output /shared/run"

``--output`` must be a folder that all processes see. If one of them ends, stop the
others and start all again: they go on from the last checkpoint.
"""

import jax
from many_devices import make_devices, parser, train

if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--coordinator", help="host:port of the first process")
    options.add_argument("--processes", type=int, help="how many there are")
    options.add_argument("--process", type=int, help="which of them this is, from 0")
    arguments = options.parse_args()
    make_devices(arguments)
    jax.distributed.initialize(
        arguments.coordinator, arguments.processes, arguments.process
    )
    train(arguments)
