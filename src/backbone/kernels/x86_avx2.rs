//! x86-64 with AVX2 only: `vpmaddubsw`, which saturates, so that the packer keeps pairs of weights below that.

super::x86_ymm::tiles!("avx2", "avx2", ["avx2"], true, |acc, x, w| {
    let pairs = _mm256_maddubs_epi16(x, w);
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
});
