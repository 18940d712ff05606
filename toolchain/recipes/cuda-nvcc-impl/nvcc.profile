# SPDX-License-Identifier: Apache-2.0

TOP              = $(_HERE_)/../targets/x86_64-linux

CICC_PATH        = $(_HERE_)/../nvvm/bin
NVVMIR_LIBRARY_DIR = $(_HERE_)/../nvvm/libdevice

LD_LIBRARY_PATH += $(TOP)/lib:
PATH            += $(CICC_PATH):$(_HERE_):

INCLUDES        +=  "-I$(TOP)/include" $(_SPACE_)
SYSTEM_INCLUDES +=  "-isystem" "$(TOP)/include/cccl" $(_SPACE_)

LIBRARIES        =+ $(_SPACE_) "-L$(TOP)/lib/stubs" "-L$(TOP)/lib"

CUDAFE_FLAGS    +=
PTXAS_FLAGS     +=
