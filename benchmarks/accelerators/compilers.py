"""XLA's compilers for an H200 and for a TPU v5e, on a machine that has neither.

A process can load one of them, and reads these environment variables as it starts, so each platform
has a process of its own.
"""

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

DEVICES = {"cuda": "H200", "tpu": "TPU v5e"}
_PACKAGES = {
    "cuda": ("jax-cuda12-pjrt", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12"),
    "tpu": ("libtpu",),
}
# Fields of XLA's GpuTargetConfigProto, from the data sheet and from `cudaGetDeviceProperties`.
_H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 150754820096
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 7 } runtime_version { major: 12 minor: 8 patch: 0 }
"""


def versions(platforms: Sequence[str]) -> dict[str, str]:
    """Returns the versions of all that decides what is compiled.

    Raises:
      ImportError: if a package is missing, with the cure.
    """
    packages = ["jax", "jaxlib", *(name for platform in platforms for name in _PACKAGES[platform])]
    try:
        return {name: importlib.metadata.version(name) for name in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            f"--platform {' '.join(platforms)} must have its compiler; got no package "
            f"{error.name}. pip install '.[accelerators]' (Linux, x86-64, 2 GB)."
        ) from error


def environment(platform: str) -> dict[str, str]:
    """Returns the environment variables of a process that compiles for a platform."""
    # The host has neither device: only the compiler is loaded, beside JAX's CPU backend.
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if platform == "cuda":
        nvcc = importlib.metadata.distribution("nvidia-cuda-nvcc-cu12")
        root = nvcc.locate_file("nvidia/cuda_nvcc")
        flags = (
            f"--xla_gpu_cuda_data_dir={root}",
            "--xla_gpu_autotune_level=0",  # would time kernels on the device
            "--xla_gpu_enable_triton_gemm=false",  # needs that too
        )
        return variables | {
            "CUDA_VISIBLE_DEVICES": "-1",
            "PATH": f"{root}/bin:{os.environ.get('PATH', '')}",
            "XLA_FLAGS": " ".join((os.environ.get("XLA_FLAGS", ""), *flags)),
        }
    library = importlib.metadata.distribution("libtpu").locate_file("libtpu/libtpu.so")
    return variables | {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_LIBRARY_PATH": str(library),
    }


def load_compiler(platform: str) -> Callable[..., Any]:
    """Returns `(function, *arguments) -> compiled`; arguments are arrays or their shapes."""
    from jax.experimental import topologies

    if platform == "cuda":
        _name_the_plugin()
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=_H200, topology="1x1x1"
        )
    else:
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    one = jax.sharding.SingleDeviceSharding(topology.devices[0])

    def compile_function(function: Callable[..., Any], *arguments: Any) -> Any:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), arguments
        )
        return jax.jit(function).trace(*shapes).lower(lowering_platforms=(platform,)).compile()

    return compile_function


def _name_the_plugin() -> None:
    """Lets JAX 0.10 name the platform of a plugin that finds no device to initialize."""
    import jax._src.xla_bridge as bridge

    known = bridge.canonicalize_platform

    def canonicalize_platform(name: str) -> str:
        return "cuda" if name in ("cuda", "gpu") else known(name)

    bridge.canonicalize_platform = canonicalize_platform
