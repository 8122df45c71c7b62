"""The only place that may run a pickle's code: a child process, started for ``convert --trust-pickle``.

    python -m resnet_service.export.unpickle INPUT OUTPUT

It writes the weights of the pickled model to OUTPUT as a bare ``state_dict``. The parent reads that as it reads any
stranger's file, so what the pickle did to this process ends with it.
"""

import sys

import torch


def main() -> None:
    """Unpickle ``argv[1]`` in full and write its ``state_dict`` to ``argv[2]``."""
    source, target = sys.argv[1:]
    content = torch.load(source, map_location="cpu", weights_only=False)  # the user trusted this file by name
    torch.save(dict(content.state_dict()) if isinstance(content, torch.nn.Module) else content, target)


if __name__ == "__main__":
    main()
