# SPDX-License-Identifier: Apache-2.0
# Restores the variables that activate.sh changed.
if [ "${CONDA_BACKUP_CUDA:-}" = 1 ]; then
    for _cuda_name in CFLAGS CPPFLAGS CXXFLAGS LDFLAGS CMAKE_ARGS NVCC_PREPEND_FLAGS NVCC_APPEND_FLAGS CUDAARCHS; do
        eval "_cuda_value=\${CONDA_BACKUP_CUDA_$_cuda_name+set}"
        if [ "$_cuda_value" = set ]; then eval "export $_cuda_name=\"\$CONDA_BACKUP_CUDA_$_cuda_name\""; else unset "$_cuda_name"; fi
        unset "CONDA_BACKUP_CUDA_$_cuda_name"
    done
    unset CONDA_BACKUP_CUDA _cuda_name _cuda_value
fi
