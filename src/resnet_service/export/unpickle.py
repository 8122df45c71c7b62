"""The child process of ``convert --trust-pickle``: the only code that may execute a pickle.

    python -m resnet_service.export.unpickle INPUT OUTPUT

It writes the weights of the pickled model to OUTPUT as a bare ``state_dict``. The parent reads OUTPUT as untrusted
input, so all effects of the pickle on this process end with it.
"""

import sys

import torch


def main() -> None:
    """Unpickle ``argv[1]``, code included, and write its ``state_dict`` to ``argv[2]``."""
    source, target = sys.argv[1:]
    content = torch.load(source, map_location="cpu", weights_only=False)  # the user declared this file trusted
    torch.save(dict(content.state_dict()) if isinstance(content, torch.nn.Module) else content, target)


if __name__ == "__main__":
    main()
