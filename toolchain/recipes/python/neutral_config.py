# SPDX-License-Identifier: Apache-2.0
"""Removes the traces of the build machine from the build configuration of this interpreter.

usage: neutral_config.py STDLIB PREFIX

`_sysconfigdata_*.py` and the Makefile contain all paths and flags of the build. This script makes
the paths of the installation begin with PREFIX, which conda replaces at installation, gives
compilers their plain names, and removes the folders of the build.
"""

import ast
import os
import pathlib
import pprint
import re
import sys

# Flags that name folders of the build or are specific to one distribution's packages.
DROPPED = re.compile(
    r"-(ffile-prefix-map|fdebug-prefix-map|fmacro-prefix-map)=.*|-Wl,-rpath(-link)?[,=].*|-[LI]/.*|-isystem.*|-Wl,-Bsymbolic-functions"
    r"|-Wl,-z,relro|-Wformat|-Werror=format-security|-Wdate-time|-D_FORTIFY_SOURCE=.*|-Wl,--allow-shlib-undefined"
)
# The prefix of the name of a tool, with or without a folder.
TOOL = re.compile(
    r"(?:/\S*/)?x86_64-(?:conda-)?linux-gnu-(?:gcc-(?=ar\b))?(?=(?:gcc|g\+\+|cpp|ar|ld|nm|ranlib|readelf|strip|c\+\+|cc|python)(?![\w+]))"
)
# The folder of a command that is on every PATH.
COMMAND_FOLDER = re.compile(r"^/(usr/)?bin/(?=\w+(\s|$))")
# Values about the build tree and its commands, which are useless for an installed interpreter.
BUILD_ONLY = (
    "CONFIG_ARGS",
    "COVERAGE_INFO",
    "COVERAGE_REPORT",
    "DTRACE",
    "RUNSHARED",
    "TESTPYTHON",
    "TESTRUNNER",
    "UPDATE_FILE",
    "WASM_ASSETS_DIR",
    "WASM_STDLIB",
    "WHEEL_PKG_DIR",
    "abs_builddir",
    "abs_srcdir",
)


def neutral(value: str, old_prefix: str, prefix: str) -> str:
    """Replace OLD_PREFIX by PREFIX, and remove tool prefixes and flags of the build from VALUE."""
    value = COMMAND_FOLDER.sub("", TOOL.sub("", value))
    if re.search(r"(^|\s)-", value):
        words = []
        skip = False
        for word in value.split():
            if skip:
                skip = False
            elif word == "-isystem":
                skip = True
            elif not DROPPED.fullmatch(word):
                words.append(word)
        value = " ".join(words)
    # Only whole path components, and only at the beginning of a path.
    value = re.sub(r"(?<![\w/.])" + re.escape(old_prefix) + r"(?=/|\s|$)", prefix, value)
    return value.replace(f"{prefix}/lib/x86_64-linux-gnu", f"{prefix}/lib")


def main() -> None:
    """Rewrite the configuration in place."""
    stdlib, prefix = pathlib.Path(sys.argv[1]), sys.argv[2]
    (data,) = stdlib.glob("_sysconfigdata_*.py")
    # The file is one assignment, to build_time_vars.
    (assignment,) = ast.parse(data.read_text()).body
    variables: dict[str, object] = ast.literal_eval(assignment.value)  # type: ignore[attr-defined]
    old_prefix = str(variables["prefix"])
    build_folder = str(variables["abs_builddir"])
    # The list of time zone folders names the machine's folders intentionally.
    kept = {"TZPATH"}
    for key, value in variables.items():
        if key in BUILD_ONLY:
            variables[key] = ""
        elif isinstance(value, str) and key not in kept:
            variables[key] = neutral(value, old_prefix, prefix)
    variables["INCLUDEPY"] = f"{prefix}/include/{stdlib.name}"
    variables["LIBDIR"] = f"{prefix}/lib"
    folders = [
        folder
        for folder in (build_folder, os.environ.get("SRC_DIR"), os.environ.get("BUILD_PREFIX"))
        if folder
    ]
    for key, value in variables.items():
        if isinstance(value, str) and any(folder in value for folder in folders):
            variables[key] = ""
    text = (
        "# Build configuration of this interpreter, with the paths of its installation.\n"
        "build_time_vars = "
    )
    data.write_text(text + pprint.pformat(variables, width=140) + "\n")

    (config,) = stdlib.glob("config-*")
    lines = [
        "# Values of the installed interpreter; the interpreter cannot be built with this file."
    ]
    lines += [
        f"{key}=\t{value}" for key, value in sorted(variables.items()) if "\n" not in str(value)
    ]
    (config / "Makefile").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
