# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that run on the GPU, as PTX text for compute capability 7.0 and later; the driver
compiles them.

Language: PTX ISA 6.0, https://docs.nvidia.com/cuda/parallel-thread-execution/.
"""

from __future__ import annotations

#: A word of the pattern is ``seed XOR (index * GOLDEN)`` in 32 bits: neighbours differ in about
#: half of their bits.
GOLDEN = 0x9E3779B9
#: Threads of a block, the same for every kernel.
THREADS = 256
#: Mismatches that are recorded with index, expected and read value; more are only counted.
RECORDED = 16
#: 32-bit words of the record: the count, then (index low, index high, expected, read) for each
#: mismatch.
RECORD_WORDS = 1 + 4 * RECORDED
#: Rounds of one launch of ``compute``: some 20 ms on a card of 2022, so that a deadline is never
#: far.
ROUNDS = 100_000
#: The beginning of the SHA-256 of what a block of ``compute`` stores after ROUNDS rounds. An H100
#: and the CPU (tests/cuda_double, IEEE 754 arithmetic with fused multiply-add) give the same.
ANSWER = "3b955c865cca1ba6"
#: Floating-point operations of a thread in a round of ``compute``: four fused multiply-adds.
FLOPS_PER_ROUND = 8

_HEADER = """
.version 6.0
.target sm_70
.address_size 64
"""

# Both kernels walk over the buffer in strides of the grid.
_PATTERN = """
.visible .entry fill(.param .u64 buffer, .param .u64 words, .param .u32 seed)
{
    .reg .pred %p<2>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [buffer];
    ld.param.u64 %rd2, [words];
    ld.param.u32 %r1, [seed];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mov.u32 %r5, %nctaid.x;
    mul.wide.u32 %rd3, %r2, %r3;
    cvt.u64.u32 %rd4, %r4;
    add.u64 %rd3, %rd3, %rd4;
    mul.wide.u32 %rd5, %r5, %r3;
AGAIN:
    setp.ge.u64 %p1, %rd3, %rd2;
    @%p1 bra END;
    cvt.u32.u64 %r6, %rd3;
    mul.lo.u32 %r7, %r6, 0x9E3779B9;
    xor.b32 %r7, %r7, %r1;
    shl.b64 %rd6, %rd3, 2;
    add.u64 %rd7, %rd1, %rd6;
    st.global.u32 [%rd7], %r7;
    add.u64 %rd3, %rd3, %rd5;
    bra AGAIN;
END:
    ret;
}

.visible .entry check(.param .u64 buffer, .param .u64 words, .param .u32 seed, .param .u64 record, .param .u32 room)
{
    .reg .pred %p<4>;
    .reg .b32 %r<14>;
    .reg .b64 %rd<14>;
    ld.param.u64 %rd1, [buffer];
    ld.param.u64 %rd2, [words];
    ld.param.u32 %r1, [seed];
    ld.param.u64 %rd8, [record];
    ld.param.u32 %r9, [room];
    cvta.to.global.u64 %rd1, %rd1;
    cvta.to.global.u64 %rd8, %rd8;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mov.u32 %r5, %nctaid.x;
    mul.wide.u32 %rd3, %r2, %r3;
    cvt.u64.u32 %rd4, %r4;
    add.u64 %rd3, %rd3, %rd4;
    mul.wide.u32 %rd5, %r5, %r3;
AGAIN:
    setp.ge.u64 %p1, %rd3, %rd2;
    @%p1 bra END;
    cvt.u32.u64 %r6, %rd3;
    mul.lo.u32 %r7, %r6, 0x9E3779B9;
    xor.b32 %r7, %r7, %r1;
    shl.b64 %rd6, %rd3, 2;
    add.u64 %rd7, %rd1, %rd6;
    ld.global.u32 %r8, [%rd7];
    setp.eq.u32 %p2, %r7, %r8;
    @%p2 bra NEXT;
    atom.global.add.u32 %r10, [%rd8], 1;
    setp.ge.u32 %p3, %r10, %r9;
    @%p3 bra NEXT;
    mul.wide.u32 %rd9, %r10, 16;
    add.u64 %rd10, %rd8, %rd9;
    shr.u64 %rd11, %rd3, 32;
    cvt.u32.u64 %r11, %rd11;
    st.global.u32 [%rd10+4], %r6;
    st.global.u32 [%rd10+8], %r11;
    st.global.u32 [%rd10+12], %r7;
    st.global.u32 [%rd10+16], %r8;
NEXT:
    add.u64 %rd3, %rd3, %rd5;
    bra AGAIN;
END:
    ret;
}
"""

# x -> fraction of x * a + b, brought back to [1, 2) by its bits: a chaotic chain, in which one
# wrong bit anywhere changes the result, while a chain that converges would heal it. The start
# depends on the thread only, so that every block of every launch on every GPU must give the same
# words. 1.5707963 and 0.70710677 have no pattern.
_COMPUTE = """
.visible .entry compute(.param .u64 output, .param .u32 rounds)
{
    .reg .pred %p<2>;
    .reg .f32 %f<7>;
    .reg .b32 %r<14>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [output];
    ld.param.u32 %r1, [rounds];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    mul.lo.u32 %r6, %r4, 0x9E3779B9;
    shr.u32 %r7, %r6, 9;
    or.b32 %r7, %r7, 0x3F800000;
    xor.b32 %r8, %r7, 0x00155555;
    xor.b32 %r9, %r7, 0x002AAAAA;
    xor.b32 %r10, %r7, 0x007FFFFF;
    mov.b32 %f5, 0x3FC90FDB;
    mov.b32 %f6, 0x3F3504F3;
    mov.u32 %r11, 0;
AGAIN:
    mov.b32 %f1, %r7;
    mov.b32 %f2, %r8;
    mov.b32 %f3, %r9;
    mov.b32 %f4, %r10;
    fma.rn.f32 %f1, %f1, %f5, %f6;
    fma.rn.f32 %f2, %f2, %f5, %f6;
    fma.rn.f32 %f3, %f3, %f5, %f6;
    fma.rn.f32 %f4, %f4, %f5, %f6;
    mov.b32 %r7, %f1;
    mov.b32 %r8, %f2;
    mov.b32 %r9, %f3;
    mov.b32 %r10, %f4;
    and.b32 %r7, %r7, 0x007FFFFF;
    and.b32 %r8, %r8, 0x007FFFFF;
    and.b32 %r9, %r9, 0x007FFFFF;
    and.b32 %r10, %r10, 0x007FFFFF;
    or.b32 %r7, %r7, 0x3F800000;
    or.b32 %r8, %r8, 0x3F800000;
    or.b32 %r9, %r9, 0x3F800000;
    or.b32 %r10, %r10, 0x3F800000;
    add.u32 %r11, %r11, 1;
    setp.lt.u32 %p1, %r11, %r1;
    @%p1 bra AGAIN;
    shl.b32 %r8, %r8, 3;
    shl.b32 %r9, %r9, 6;
    shl.b32 %r10, %r10, 9;
    xor.b32 %r7, %r7, %r8;
    xor.b32 %r7, %r7, %r9;
    xor.b32 %r7, %r7, %r10;
    mul.wide.u32 %rd2, %r5, 4;
    add.u64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r7;
    ret;
}
"""

#: The module that is loaded into the GPU; names of its entries: fill, check, compute.
PTX = _HEADER + _PATTERN + _COMPUTE
