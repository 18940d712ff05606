# SPDX-License-Identifier: Apache-2.0
# What both ways of making the python package share. Reads PYTHON_VERSION ("3.11", "3.13t") and PREFIX.

# copy_python_libraries ROOT SONAME...: bring the libraries that extension modules need into $PREFIX/lib.
copy_python_libraries() {
    local root=$1 library
    shift
    for library in "$@"; do
        copy_library "$library" "$root" "$PREFIX/lib"
        patchelf --set-rpath '$ORIGIN' "$PREFIX/lib/$library"
    done
    python_libraries=("$@")
}

# finish_python GLIBC: names in bin/, RPATHs, paths in the configuration, byte code; nothing may need a glibc newer than GLIBC.
finish_python() {
    local glibc=$1 series=${PYTHON_VERSION%t} stdlib=$PREFIX/lib/python$PYTHON_VERSION bin=$PREFIX/bin config name
    config=$(echo "$stdlib"/config-*)

    for name in python python3 "python$series"; do
        [ "$name" = "python$PYTHON_VERSION" ] || ln -sfn "python$PYTHON_VERSION" "$bin/$name"
    done
    # RPATH and not RUNPATH: libraries that extension modules of other packages need are found in this prefix too.
    patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$bin/python$PYTHON_VERSION"
    patchelf --set-rpath '$ORIGIN/../..' "$stdlib"/lib-dynload/*.so

    # Modules that only CPython's own tests use, and static libraries for programs that contain an interpreter.
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
    # An empty folder is not kept in a package.
    echo 'Packages of this environment are installed here.' > "$stdlib/site-packages/README.txt"

    # Byte code that is valid whatever the time stamps, with paths below "/": importing puts the right ones in. The configuration names
    # the prefix, which changes at installation, so it stays source only.
    find "$stdlib" -name __pycache__ -prune -exec rm -r {} +
    # -B: otherwise the interpreter writes byte code of what it imports for this itself, with the build's paths, and compileall keeps that.
    env -i "$bin/python" -I -B -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s "$PREFIX" -p / \
        -x '(_sysconfigdata|/site-packages/|lib2to3/tests|bad_)' "$stdlib"

    glibc_at_most "$glibc" "$bin/python$PYTHON_VERSION" "$stdlib"/lib-dynload/*.so "${python_libraries[@]/#/$PREFIX/lib/}"
}

# write_script FILE SOURCE: install the Python script SOURCE as FILE, run by this prefix's interpreter.
write_script() {
    { echo "#!$PREFIX/bin/python$PYTHON_VERSION"; grep -v '^#!' "$2"; } > "$1"
    chmod 755 "$1"
}
