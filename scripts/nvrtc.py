#!/usr/bin/env python3
"""Compiles one CUDA source to PTX with a given NVRTC library: nvrtc.py LIBRARY SOURCE PTX.

Part of shaders.sh, which pins the library's version. Only the standard library is needed, and no GPU.
"""

import ctypes
import pathlib
import sys

OPTIONS = [
    # The oldest supported architecture (Turing). PTX runs on every later one, too.
    b"--gpu-architecture=compute_75",
    # Under a later standard NVRTC writes 40 unused constants of its nv/target header into the PTX.
    b"--std=c++03",
]


class Nvrtc:
    """The seven functions of NVRTC that compile a program."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(code).decode()}")

    def text(self, program, kind):
        """The program's log or PTX (kind: "ProgramLog" or "PTX"), without the closing zero byte."""
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{kind}", program, buffer)
        return buffer.value

    def compile(self, source, name):
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source, name.encode(), 0, None, None)
        options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
        try:
            self.call("nvrtcCompileProgram", program, len(OPTIONS), options)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.text(program, 'ProgramLog').decode()}") from None
        return self.text(program, "PTX")


def main():
    library, source, ptx = sys.argv[1:]
    source = pathlib.Path(source)
    try:
        text = Nvrtc(library).compile(source.read_bytes(), source.name)
    except (OSError, RuntimeError) as error:
        sys.exit(f"nvrtc.py: {source}: {error}")
    pathlib.Path(ptx).write_bytes(text)


if __name__ == "__main__":
    main()
