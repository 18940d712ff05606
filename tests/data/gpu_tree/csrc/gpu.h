// SPDX-License-Identifier: Apache-2.0
#pragma once

// nvcc declares the run time by itself, a HIP compiler does not.
#ifdef __HIP__
#include <hip/hip_runtime.h>
#endif
