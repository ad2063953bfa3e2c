"""`python -m cfx.training CONFIG --dotted.key value`, also under `accelerate launch -m` and `torchrun -m`."""

import logging
import sys

from cfx.core.errors import CfxError
from cfx.runtime.config import split_overrides
from cfx.runtime.shares import leave
from cfx.training.config import read_config
from cfx.training.loop import train


def main(arguments: list[str]) -> int:
    """Train; the exit status is 0 when done, 130 when interrupted, 2 for an error."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if not arguments or arguments[0].startswith("-"):
        logging.error("usage: python -m cfx.training CONFIG.yaml [--dotted.key value ...]")
        return 2
    try:
        result = train(read_config(arguments[0], split_overrides(arguments[1:])))
    except (CfxError, OSError) as error:
        logging.error("%s", error)
        return 2
    except KeyboardInterrupt:
        logging.error("interrupted before or after training; the same command goes on from the last state")
        return 130
    leave()
    return 0 if result.status == "done" else 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
