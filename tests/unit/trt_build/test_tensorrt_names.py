"""Every name of TensorRT that our code uses exists in the real bindings of 10, of 11 and of TensorRT for RTX.

The bindings of 10 and 11 are small wheels; their libraries, of gigabytes, are not needed to look at names: three empty
shared objects stand in for them.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import trt_build.compile
import worker.scoring.tensorrt_graph

BINDINGS = {"10": "tensorrt-cu12-bindings==10.16.1.11", "11": "tensorrt-cu13-bindings==11.4.0.106"}

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)

METHODS: Mapping[str, tuple[str, ...]] = {
    "Builder": (
        "build_serialized_network",
        "create_builder_config",
        "create_network",
        "create_optimization_profile",
    ),
    "IBuilderConfig": (
        "add_optimization_profile",
        "builder_optimization_level",
        "create_timing_cache",
        "hardware_compatibility_level",
        "profiling_verbosity",
        "progress_monitor",
        "set_flag",
        "set_memory_pool_limit",
        "set_timing_cache",
    ),
    "EngineInspector": ("get_engine_information",),
    "ICudaEngine": (
        "create_engine_inspector",
        "create_execution_context",
        "device_memory_size_v2",
        "get_tensor_dtype",
        "get_tensor_name",
        "get_tensor_shape",
        "num_io_tensors",
    ),
    "IExecutionContext": ("execute_async_v3", "set_device_memory", "set_input_shape", "set_tensor_address"),
    "ILayer": ("get_output", "name", "num_outputs", "type"),
    "INetworkDefinition": ("get_input", "get_layer", "num_inputs", "num_layers"),
    "IOptimizationProfile": ("set_shape",),
    "IProgressMonitor": ("phase_finish", "phase_start", "step_complete"),
    "ITensor": ("dtype", "name", "shape"),
    "ITimingCache": ("serialize",),
    "OnnxParser": ("get_error", "num_errors", "parse"),
    "ParserError": ("desc",),
    "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
}
"""What is called on TensorRT's objects, by their class."""

RTX_METHODS: Mapping[str, tuple[str, ...]] = {
    "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),
    "ICudaEngine": ("create_runtime_config",),
    "IRuntimeConfig": (
        "create_runtime_cache",
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
        "set_runtime_cache",
    ),
}

RTX_ONLY = {
    "ComputeCapability",
    "CudaGraphStrategy",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
}
"""Names that stand behind `backend == "tensorrt-rtx"` in the code."""

SIGNATURES: Mapping[str, str] = {
    "Builder.build_serialized_network": "network, config",
    "Builder.create_network": "flags",
    "ICudaEngine.create_execution_context": "strategy",
    "IBuilderConfig.set_memory_pool_limit": "pool, pool_size",
    "IBuilderConfig.set_timing_cache": "cache, ignore_mismatch",
    "IExecutionContext.execute_async_v3": "stream_handle",
    "IExecutionContext.set_device_memory": "memory, size",
    "IExecutionContext.set_input_shape": "name, shape",
    "IExecutionContext.set_tensor_address": "name, memory",
    "IOptimizationProfile.set_shape": "input, min, opt, max",
    "Runtime.deserialize_cuda_engine": "serialized_engine",
}
"""What those take whose arguments a newer TensorRT could move: an overload of each, without `self`."""

RTX_SIGNATURES: Mapping[str, str] = {
    "IBuilderConfig.set_compute_capability": "compute_capability, index",
    "ICudaEngine.create_execution_context": "runtime_config",
    "IRuntimeConfig.set_execution_context_allocation_strategy": "strategy",
    "IRuntimeConfig.set_runtime_cache": "cache",
}

BY_CHOICE = {"HardwareCompatibilityLevel.AMPERE_PLUS", "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}
"""Names that are looked up by what a user chose."""

LIST_NAMES = r"""
import importlib, json, re, sys
trt = importlib.import_module(sys.argv[1])
names = set()
for name in dir(trt):
    value = getattr(trt, name)
    names.add(name)
    for member in dir(value) if isinstance(value, type) else ():
        names.add(f"{name}.{member}")
        overloads = rf"^\s*(?:\d+\. )?{member}\(self: [^,)]+(.*)\) ->"
        for arguments in re.findall(overloads, getattr(value, member).__doc__ or "", re.MULTILINE):
            taken = ", ".join(re.findall(r", (\w+): ", arguments))
            names.add(f"{name}.{member}({taken})")
print(json.dumps({"version": trt.__version__, "names": sorted(names)}))
"""


def names_used() -> set[str]:
    """Everything that our code takes from a module that it calls `trt` or `self._trt`: `Builder`, `Class.MEMBER`."""
    used = set()
    for module in (trt_build.compile, worker.scoring.tensorrt_graph):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            name = _dotted(node)
            for prefix in ("trt.", "self._trt."):
                if name.startswith(prefix):
                    used.add(name.removeprefix(prefix))
    parts = {part for name in used for part in (name, name.partition(".")[0])}
    return {name for name in parts if "__" not in name}


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := _dotted(node.value)):
        return f"{inner}.{node.attr}"
    return ""


def names_of(module: str, path: str | None = None, libraries: Path | None = None) -> set[str]:
    env = (
        os.environ | ({"PYTHONPATH": path} if path else {}) | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})
    )
    done = subprocess.run(
        [sys.executable, "-c", LIST_NAMES, module], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)["names"])


@pytest.fixture(scope="module", params=BINDINGS)
def classic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """All names of the bindings of TensorRT 10 and 11."""
    folder = tmp_path_factory.mktemp(f"tensorrt{request.param}")
    wheel = BINDINGS[request.param]
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"{wheel} cannot be had here: {done.stderr.strip()[-300:]}")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        target = f"lib{library}.so.{request.param}"
        compile_ = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{target}", source, "-o", folder / target]
        try:
            subprocess.run(compile_, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("no C compiler here to make the stand-ins with")
    return names_of("tensorrt_bindings", path=str(folder), libraries=folder)


def test_the_code_is_read_right() -> None:
    used = names_used()
    assert {"Builder", "BuilderFlag.VERSION_COMPATIBLE", "IProgressMonitor", "DataType.UINT8", "Runtime"} <= used
    assert used >= RTX_ONLY


def test_tensorrt_has_every_name_that_its_path_uses(classic: set[str]) -> None:
    methods = {f"{kind}.{method}" for kind, names in METHODS.items() for method in names}
    assert {f"{name}({arguments})" for name, arguments in SIGNATURES.items()} <= classic
    assert (names_used() - RTX_ONLY) | BY_CHOICE | methods <= classic


def test_rtx_has_every_name_that_either_path_uses() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has no wheel for this machine")
    there = names_of("tensorrt_rtx_bindings")
    methods = {
        f"{kind}.{method}" for table in (METHODS, RTX_METHODS) for kind, names in table.items() for method in names
    }
    assert names_used() | BY_CHOICE | methods <= there
    signatures = [*SIGNATURES.items(), *RTX_SIGNATURES.items()]
    assert {f"{name}({arguments})" for name, arguments in signatures} <= there


def test_a_name_that_is_gone_would_be_noticed(classic: set[str]) -> None:
    assert "BuilderFlag.INVENTED" not in classic
    assert "ComputeCapability" not in classic
