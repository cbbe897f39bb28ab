"""Generates kvtier/v1/*_pb2*.py from ../../proto before the package is built."""

import importlib.metadata
import pathlib
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"

# setuptools looks for the package before the build step that fills it.
(HERE / "kvtier" / "v1").mkdir(exist_ok=True)
(HERE / "kvtier" / "v1" / "__init__.py").touch()


def generate() -> None:
    from grpc_tools import protoc

    sources = sorted(str(path) for path in (PROTO / "kvtier" / "v1").glob("*.proto"))
    if not sources:
        sys.exit(f"no .proto files under {PROTO}: build from a checkout of kvtier")
    include = str(pathlib.Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{PROTO}", f"-I{include}"]
    arguments += [f"--python_out={HERE}", f"--grpc_python_out={HERE}", *sources]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


class BuildWithProtos(build_py):
    def run(self):
        generate()
        super().run()


def at_least(package: str) -> str:
    return f"{package}>={importlib.metadata.version(package)}"


setup(
    cmdclass={"build_py": BuildWithProtos},
    install_requires=["numpy", at_least("grpcio"), at_least("protobuf")],
)
