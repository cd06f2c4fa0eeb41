//! Int8 kernels per instruction set.
