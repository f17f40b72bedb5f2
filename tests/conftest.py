"""Strict settings for every test: what is implicit elsewhere is an error here."""

import gc
import os
import pathlib
import zlib
from collections.abc import Iterator
from importlib.metadata import version

# Before the backend starts: eight devices on any machine. Most of a run is compiling, and most of
# that is LLVM's optimizations and, on JAX 0.10, emitters of faster loops: they change how fast a
# program is and not what it computes. Deep runs have them, and so have the tests that pin masks,
# compare ways of running or read the loops of programs: these compile by `cases.AS_USERS`. Programs
# are small, so that compiling one in parallel parts costs more than it gains. A flag that XLA does
# not know ends the process, so the last two are set for one version only.
os.environ["XLA_FLAGS"] = (
    (
        "--xla_backend_optimization_level=0 "
        + (
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
            * version("jax").startswith("0.10.")
        )
    )
    * (os.environ.get("HYPOTHESIS_PROFILE") != "deep")
    + os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", parent=settings.get_profile("ci"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Takes no more than the memory of a usual machine: a worker needs up to 2 GB."""
    return min(os.cpu_count() or 1, 8)


# Tracing makes many objects and few cycles, and looking for these takes a twentieth of a run.
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def programs_of_earlier_runs(pytestconfig: pytest.Config) -> None:
    """Reads what earlier runs compiled from JAX's own cache, and writes to it.

    Its keys are hashes of the program, the versions, XLA's flags and the compile options. If an
    entry is half written, by another process, JAX warns and compiles. The directory is set by the
    first test, because with `--cache-clear` each worker removes it when it is configured.
    """
    if hasattr(pytestconfig, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(pytestconfig.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


MAPPINGS = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs() -> Iterator[None]:
    """Forgets compiled programs from time to time.

    Each holds memory mappings, of which Linux gives a process 65,530, and a whole run needs more.
    """
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A key of the test's own, the same in every run."""
    return jax.random.fold_in(jax.random.key(0), zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of the test's own, the same in every run and in whatever order tests run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
