//! x86-64 with AVX-VNNI (processors without AVX-512): `vpdpbusd` on 256 bits.

super::x86_ymm::tiles!("avxvnni", "avx2,avxvnni", ["avx2", "avxvnni"], false, _mm256_dpbusd_avx_epi32);
