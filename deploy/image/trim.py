"""Remove the files of installed packages that serving ONNX models on a CPU never loads, and print the space saved.

A pattern without a match is an error, so that a release that moves its files leads to a review of the list. The image
build runs ``python trim.py SITE_PACKAGES``.
"""

import shutil
import sys
from pathlib import Path

# Pattern in site-packages, and its purpose. For exported models, OpenVINO needs its core, the CPU plugin, the ONNX
# frontend and TBB; the rest supports devices that the service never uses and file formats that it never reads.
UNNEEDED = {
    "openvino/libs/libopenvino_intel_gpu_plugin.so": "GPUs",
    "openvino/libs/cache.json": "tuning of GPU kernels",
    "openvino/libs/libopenvino_intel_npu_plugin.so": "NPUs",
    "openvino/libs/libopenvino_tensorflow_frontend.so.*": "TensorFlow models",
    "openvino/libs/libopenvino_tensorflow_lite_frontend.so.*": "TensorFlow Lite models",
    "openvino/libs/libopenvino_pytorch_frontend.so.*": "TorchScript models",
    "openvino/libs/libopenvino_paddle_frontend.so.*": "PaddlePaddle models",
    "openvino/libs/libopenvino_gguf_frontend.so.*": "GGUF models",
    "openvino/libs/libopenvino_jax_frontend.so.*": "JAX models",
    "openvino/libs/libopenvino_auto_plugin.so": "choice among devices",
    "openvino/libs/libopenvino_auto_batch_plugin.so": "batches for GPUs",
    "openvino/libs/libopenvino_hetero_plugin.so": "one model on several devices",
    "openvino/libs/libopenvino_c.so.*": "callers in C",
    "openvino/include": "headers",
    "openvino/tools": "conversion and benchmark tools",
    "onnx/backend": "test data",
    "onnx/reference": "the reference implementation, which exports are compared with",
    "numpy/f2py": "wrappers for Fortran code",
    "numpy/**/tests": "NumPy's own tests",
}


def size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder; links count as zero."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def trim(site_packages: Path) -> dict[str, int]:
    """Remove the listed files from ``site_packages``; return the bytes that each pattern freed.

    Raises:
        LookupError: A pattern has no match.

    """
    freed = {}
    for pattern in UNNEEDED:
        found = list(site_packages.glob(pattern))
        if not found:
            raise LookupError(f"{pattern} is not in {site_packages}: check what the new release has in its place.")
        freed[pattern] = sum(map(size, found))
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed


def main() -> None:
    """Trim the folder given on the command line."""
    try:
        freed = trim(Path(sys.argv[1]))
    except LookupError as error:
        sys.exit(f"error: {error}")
    for pattern, count in freed.items():
        print(f"{count / 1e6:6.1f} MB  {pattern}: {UNNEEDED[pattern]}")
    print(f"{sum(freed.values()) / 1e6:6.1f} MB in all")


if __name__ == "__main__":
    main()
