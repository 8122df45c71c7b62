"""Coverage-guided fuzzing: `python -m fuzz TARGET SECONDS`, with atheris (libFuzzer).

libFuzzer writes a failing input to the current folder. Put it into `fuzz/corpus/TARGET`, where a fast test checks it
from then on. Inputs that only reach new code are discarded at the end, so that the corpus stays small.
"""

import sys
import tempfile

import atheris

# Atheris would need minutes to instrument Pillow; the code that runs before it is instrumented.
_INSTRUMENTED = [
    "python_multipart",
    "resnet_service.api.base64_text",
    "resnet_service.api.forms",
    "resnet_service.api.mistaken_content",
    "resnet_service.api.uploads",
    "resnet_service.imaging.decoder_limits",
    "resnet_service.imaging.decode",
    "resnet_service.export.third_party_graph",
    "resnet_service.models.exported",
    "resnet_service.models.graphs",
    "resnet_service.models.networks",
    "resnet_service.models.checkpoint",
    "resnet_service.export.conversion.matching",
    "resnet_service.models.file_kinds",
]

with atheris.instrument_imports(include=_INSTRUMENTED):
    from fuzz.targets import CORPUS, TARGETS

_MAX_BYTES = 8192
_SECONDS_EACH = 10
_MEGABYTES = 3000


def main() -> None:
    """Fuzz one target for a number of seconds; a finding makes the exit code other than 0."""
    target, seconds = sys.argv[1:]
    with tempfile.TemporaryDirectory() as found:
        arguments = [
            sys.argv[0],
            found,
            str(CORPUS / target),
            f"-max_total_time={int(seconds)}",
            f"-max_len={_MAX_BYTES}",
            f"-timeout={_SECONDS_EACH}",
            f"-rss_limit_mb={_MEGABYTES}",
            "-print_final_stats=1",
        ]
        atheris.Setup(arguments, TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
