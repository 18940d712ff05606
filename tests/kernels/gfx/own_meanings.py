# SPDX-License-Identifier: Apache-2.0
"""C++ for vector instructions whose pseudo-code is not translated, or would be slow."""

F32, F64 = "As<float, 32>", "As<double, 64>"
#: Instruction without its encoding -> statements.
OWN = {
    "V_MOV_B32": "D0 = S0;",
    **{
        f"V_{which}{name}_F32": f"Put<float, 32>(D0, v_{which.lower()}_f32({F32}(S0), {F32}(S1)));"
        for which in ("MAX", "MIN")
        for name in ("", "_NUM")
    },
    **{
        f"V_{which}3{name}_F32": f"Put<float, 32>(D0, v_{which.lower()}3_f32({F32}(S0), {F32}(S1),"
        f" {F32}(S2)));"
        for which in ("MAX", "MIN")
        for name in ("", "_NUM")
    },
    **{
        f"V_MED3{name}_F32": f"Put<float, 32>(D0, Median({F32}(S0), {F32}(S1), {F32}(S2)));"
        for name in ("", "_NUM")
    },
    "V_RNDNE_F32": f"Put<float, 32>(D0, std::nearbyint({F32}(S0)));",
    "V_EXP_F32": f"Put<float, 32>(D0, exp2({F32}(S0)));",
    "V_LDEXP_F32": f"Put<float, 32>(D0, std::ldexp({F32}(S0), static_cast<int32_t>(S1)));",
    "V_LDEXP_F64": f"Put<double, 64>(D0, std::ldexp({F64}(S0), static_cast<int32_t>(S1)));",
    "V_DIV_SCALE_F32": f"""\
uint32_t scaled = 0;
Put<float, 32>(D0, ScaleForDivision({F32}(S0), {F32}(S1), {F32}(S2), &scaled));
MASK_OUT = scaled;""",
    "V_DIV_FMAS_F32": f"""\
const float sum = std::fma({F32}(S0), {F32}(S1), {F32}(S2));
Put<float, 32>(D0, MASK_IN ? std::ldexp(sum, {F32}(S2) != 0 && std::fabs({F32}(S2)) > 1 ? 64 : -64)
                           : sum);""",
    "V_DIV_FIXUP_F32": f"Put<float, 32>(D0, FixDivision({F32}(S0), {F32}(S1), {F32}(S2)));",
    "V_PERM_B32": "D0 = PermuteBytes(S0, S1, S2);",
    "V_MBCNT_LO_U32_B32": """\
D0 = std::popcount(S0 & (lane < 32 ? (1u << lane) - 1 : ~0u)) + S1;""",
    "V_MBCNT_HI_U32_B32": """\
D0 = std::popcount(S0 & (lane < 32 ? 0u : (1u << (lane - 32)) - 1)) + S1;""",
    "V_BCNT_U32_B32": "D0 = std::popcount(S0) + S1;",
    "V_MAD_U64_U32": "D0 = uint64_t{S0} * S1 + S2;",
    "V_MAD_I64_I32": """\
D0 = static_cast<uint64_t>(int64_t{static_cast<int32_t>(S0)} * static_cast<int32_t>(S1)) + S2;""",
    "V_PK_MOV_B32": """\
D0 = (OPSEL & 1 ? S0 >> 32 : S0 & 0xffffffff) | (OPSEL & 2 ? S1 >> 32 : S1) << 32;""",
    "V_LSHL_ADD_U64": "D0 = (S0 << (S1 & 7)) + S2;",
    "V_CVT_PK_F16_F32": f"""\
D0 = static_cast<uint32_t>(Raw(static_cast<Half>({F32}(S0)))
                           | Raw(static_cast<Half>({F32}(S1))) << 16);""",
}
OWN |= {"V_MAD_CO_U64_U32": OWN["V_MAD_U64_U32"], "V_MAD_CO_I64_I32": OWN["V_MAD_I64_I32"]}
