# SPDX-License-Identifier: Apache-2.0
# Shell functions of from_debian.sh and from_source.sh. They read PYTHON_VERSION ("3.11", "3.13t") and PREFIX.

# copy_python_libraries ROOT SONAME...: copy the libraries that extension modules need into $PREFIX/lib.
copy_python_libraries() {
    local root=$1 library
    shift
    for library in "$@"; do
        copy_library "$library" "$root" "$PREFIX/lib"
        patchelf --set-rpath '$ORIGIN' "$PREFIX/lib/$library"
    done
    python_libraries=("$@")
}

# finish_python GLIBC: make the names in bin/, set RPATHs, make the configuration's paths neutral, and write the bytecode. Fail if a file
# needs a glibc newer than GLIBC.
finish_python() {
    local glibc=$1 series=${PYTHON_VERSION%t} stdlib=$PREFIX/lib/python$PYTHON_VERSION bin=$PREFIX/bin config name
    config=$(echo "$stdlib"/config-*)

    for name in python python3 "python$series"; do
        [ "$name" = "python$PYTHON_VERSION" ] || ln -sfn "python$PYTHON_VERSION" "$bin/$name"
    done
    # RPATH instead of RUNPATH, so that libraries for extension modules of other packages are found in this prefix too.
    patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$bin/python$PYTHON_VERSION"
    patchelf --set-rpath '$ORIGIN/../..' "$stdlib"/lib-dynload/*.so

    # Remove modules that only CPython's tests use, and static libraries for programs that embed an interpreter.
    rm -f "$stdlib"/lib-dynload/{_test,_xxtest,xxlimited,_ctypes_test}*
    find "$config" -type f ! -name Makefile ! -name python-config.py -delete
    find "$config" -type l -delete

    env -i "$bin/python" -I -B "$RECIPE_DIR/neutral_config.py" "$stdlib" "$PREFIX"
    write_script "$bin/python$PYTHON_VERSION-config" "$config/python-config.py"
    for name in python3 "python$series"; do
        [ "$name" = "python$PYTHON_VERSION" ] || ln -sfn "python$PYTHON_VERSION-config" "$bin/$name-config"
    done
    printf 'import pydoc\n\npydoc.cli()\n' > pydoc.py
    write_script "$bin/pydoc$PYTHON_VERSION" pydoc.py
    for name in pydoc3 "pydoc$series"; do
        [ "$name" = "pydoc$PYTHON_VERSION" ] || ln -sfn "pydoc$PYTHON_VERSION" "$bin/$name"
    done
    mkdir -p "$stdlib/site-packages"
    # A package cannot contain an empty folder.
    echo 'Packages of this environment are installed here.' > "$stdlib/site-packages/README.txt"

    # Hash-based bytecode, which does not depend on time stamps, with paths below "/", which are corrected at import. The configuration
    # contains the prefix, which changes at installation, so it is not compiled.
    find "$stdlib" -name __pycache__ -prune -exec rm -r {} +
    # -B: otherwise the interpreter would write bytecode of the modules that it imports, with the build's paths, and compileall would keep
    # it.
    env -i "$bin/python" -I -B -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s "$PREFIX" -p / \
        -x '(_sysconfigdata|/site-packages/|lib2to3/tests|bad_)' "$stdlib"

    glibc_at_most "$glibc" "$bin/python$PYTHON_VERSION" "$stdlib"/lib-dynload/*.so "${python_libraries[@]/#/$PREFIX/lib/}"
}

# write_script FILE SOURCE: install the Python script SOURCE as FILE, with this prefix's interpreter.
write_script() {
    { echo "#!$PREFIX/bin/python$PYTHON_VERSION"; grep -v '^#!' "$2"; } > "$1"
    chmod 755 "$1"
}
