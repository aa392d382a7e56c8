"""Every name of TensorRT's that is used is one of TensorRT's: asked of the bindings of both libraries.

Those of TensorRT for RTX are asked with their library. Those of full TensorRT (a wheel of 1.3 MB,
`tensorrt-cu12-bindings`) load only with libraries that are large and come from NVIDIA. Where those are missing,
libraries without content take their places: enough to ask for names.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_tensorrt import stand_in, stand_in_for_rtx

from engines.tensorrt import library as library_module
from engines.tensorrt.messages import messages_of, monitor_of

PACKAGE = Path(__file__).parents[2] / "engines" / "tensorrt"
NAMES = {  # what the variables of our code hold
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "cache": "IRuntimeCache",
}
ONLY_RTX = ("rtx.py",)  # and nothing of TensorRT is in the files that write ONNX, onnx_*.py
FULL, RTX = "tensorrt_bindings", "tensorrt_rtx_bindings"
OVERRIDDEN = {
    "ILogger": {"log": ("severity", "msg")},
    "IProgressMonitor": {
        "phase_start": ("phase_name", "parent_phase", "num_steps"),
        "step_complete": ("phase_name", "step"),
        "phase_finish": ("phase_name",),
    },
}
EMPTY = "".join(
    f"void *{name}(void) {{ return 0; }}\n"
    for name in (
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
)
ASK = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
answers = {}
for name in json.load(sys.stdin):
    found = trt
    for part in name.split("."):
        found = getattr(found, part, None)
    answers[name] = None if found is None else found.__doc__ or ""
class Logger(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, msg): pass
class Monitor(trt.IProgressMonitor):
    def __init__(self): trt.IProgressMonitor.__init__(self)
Logger(), Monitor()
assert 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # 2 in version 10, 1 in 11
print(json.dumps([trt.__version__, answers]))
"""


def used(module: str) -> tuple[set[str], dict[str, int]]:
    """The names of a library's that our code uses, and with how many arguments it calls its functions."""
    names, calls = set(), {}
    for path in PACKAGE.glob("*.py"):
        if path.name.startswith("onnx_") or (path.name in ONLY_RTX and module != RTX):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = full_name(node.func)
                if name and not node.keywords:
                    calls[name] = len(node.args) - name.endswith("__init__")
            name = full_name(node)
            if name:
                names.add(name)
    return names, calls


def full_name(node: ast.AST) -> str:
    """`Builder.create_network` of the expression `builder.create_network`; "" of any other."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not parts or not isinstance(node, ast.Name) or node.id not in NAMES:
        return ""
    name = ".".join([*filter(None, [NAMES[node.id]]), *reversed(parts)])
    # an exception that is caught is called `error` too
    return "" if name in ("ParserError.name", "__version__") else name


@pytest.fixture(scope="module", params=[FULL, RTX])
def bindings(request, tmp_path_factory) -> tuple[str, str, dict]:
    """Module and version of the bindings, and the docstring (None where there is no such thing) of each name."""
    module = request.param
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"{module} is not installed")
    names, _ = used(module)
    names |= {f"{name}.{method}" for name, methods in OVERRIDDEN.items() for method in methods}
    names |= stand_in_names(module)
    environment = dict(os.environ)
    first = ask(module, names, environment)
    if first.returncode and module == FULL:
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            pytest.skip("the libraries of TensorRT are not installed, nor a compiler to make empty ones")
        folder = tmp_path_factory.mktemp("libraries")
        source = folder / "empty.c"
        source.write_text(EMPTY)
        major = re.search(r'__version__ = "(\d+)', Path(spec.origin).read_text(encoding="utf-8"))[1]
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            library = f"lib{name}.so.{major}"
            made = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", library, source]
            subprocess.run(made, cwd=folder, check=True)
        environment["LD_LIBRARY_PATH"] = str(folder)
        first = ask(module, names, environment)
    assert first.returncode == 0, f"the bindings cannot be loaded: {first.stderr.splitlines()[-1]}"
    version, answers = json.loads(first.stdout)
    return module, version, answers


def ask(module: str, names: set[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ASK, module]
    return subprocess.run(
        command, input=json.dumps(sorted(names)), env=environment, text=True, capture_output=True, check=False
    )


def stand_in_names(module: str) -> set[str]:
    """The names that the tests' stand-in for a library has."""
    names = set()
    for name, what in vars(stand_in() if module == FULL else stand_in_for_rtx()).items():
        if isinstance(what, type):
            names.add(name)
            names |= {f"{name}.{method}" for method in vars(what) if not method.startswith("_")}
    return names


def test_our_use_of_tensorrt_is_found_in_our_code():
    names, calls = used(FULL)
    assert {"Builder.create_network", "IExecutionContext.execute_async_v3", "Runtime"} <= names
    assert calls["Builder.build_serialized_network"] == 2
    assert len(names) > 25
    assert {
        "BuilderFlag.REQUIRE_USER_ALLOCATION",
        "IRuntimeCache.deserialize",
        "IExecutionContext.is_stream_capturable",
    } <= used(RTX)[0] - names


def test_every_name_exists_in_the_bindings(bindings):
    module, version, answers = bindings
    missing = [name for name, doc in answers.items() if doc is None]
    assert not missing, f"{module} {version} has no {', '.join(missing)}"
    library = library_module.FULL if module == FULL else library_module.RTX
    assert library.oldest <= tuple(map(int, version.split(".")[:2])) < library.too_new


def test_functions_take_as_many_arguments_as_we_give(bindings):
    module, _, answers = bindings
    checked = 0
    for name, given in used(module)[1].items():
        signatures = re.findall(r"\w+\(self: [\w.]+(.*?)\) ->", answers[name] or "")
        counts = []
        for signature in signatures:
            parameters = [p for p in signature.split(", ") if ": " in p]
            least = sum("=" not in p for p in parameters)
            counts.append((least, len(parameters)))
        if counts:
            checked += 1
            assert any(least <= given <= most for least, most in counts), f"{name}: {counts}, given {given}"
    assert checked > (10 if module == FULL else 16)


def test_what_tensorrt_calls_has_its_parameters(bindings):
    *_, answers = bindings
    for name, methods in OVERRIDDEN.items():
        for method, parameters in methods.items():
            found = re.findall(r"(\w+): ", answers[f"{name}.{method}"].splitlines()[0])
            assert tuple(found[1:]) == parameters


def test_our_overrides_have_those_parameters_too():
    trt = stand_in()
    for ours, methods in (
        (messages_of(trt).logger, OVERRIDDEN["ILogger"]),
        (monitor_of(trt, lambda *_: None), OVERRIDDEN["IProgressMonitor"]),
    ):
        for method, parameters in methods.items():
            assert tuple(inspect.signature(getattr(ours, method)).parameters) == parameters
