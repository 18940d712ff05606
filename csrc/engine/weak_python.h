// SPDX-License-Identifier: Apache-2.0
// The engine's bindings define a Python module without functions, so that Python can import the
// library. A process without Python, such as a linker's check, has no such function: it may be
// missing there. The compiler includes this file before the engine's C++ sources.
#pragma once

#pragma weak PyModule_Create2
