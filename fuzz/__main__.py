"""Coverage-guided fuzzing: `python -m fuzz TARGET SECONDS`, with atheris (libFuzzer).

What fails is written to the current folder by libFuzzer; put it into `fuzz/corpus/TARGET`, where a fast test keeps it
from coming back. New inputs that merely reach new code are thrown away at the end: the corpus stays small.
"""

import sys
import tempfile

import atheris

# Atheris needs minutes to instrument a module as large as Pillow's; what is searched is what stands before it.
_INSTRUMENTED = [
    "resnet_service.imaging.decoder_limits",
    "resnet_service.imaging.decode",
    "resnet_service.models.exported",
    "resnet_service.prepare",
]

with atheris.instrument_imports(include=_INSTRUMENTED):
    from fuzz.targets import CORPUS, TARGETS

_MAX_BYTES = 8192
_SECONDS_EACH = 10
_MEGABYTES = 3000


def main() -> None:
    """Fuzz one target for so many seconds; a finding ends the process with another exit code than 0."""
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
